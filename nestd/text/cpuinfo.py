# SPDX-License-Identifier: LGPL-2.1-or-later
"""/proc/cpuinfo: which virtualization extension the boot CPU shows."""

from __future__ import annotations

import re

from nestd.model import Extension

# x86 says "flags" (its line "vmx flags" is another matter), s390x "features", arm64 "Features".
_FLAGS = re.compile(r"^(?:flags|[Ff]eatures)[ \t]*:(.*)$", re.MULTILINE)
_VMX_FLAGS = re.compile(r"^vmx flags[ \t]*:(.*)$", re.MULTILINE)
_MODEL = re.compile(r"^model name[ \t]*:(.*)$", re.MULTILINE)
_PSERIES = re.compile(r"^platform[ \t]*:[ \t]*pSeries\b", re.MULTILINE)
_ARM64 = re.compile(r"^CPU architecture[ \t]*:[ \t]*8\b", re.MULTILINE)
_POWERNV = re.compile(r"^platform[ \t]*:[ \t]*PowerNV\b", re.MULTILINE)
_BY_FLAG = (Extension.VMX, Extension.SVM, Extension.SIE)


def flags(text: str) -> frozenset[str]:
    """The feature flags of the first CPU in `text`; empty where it names none.

    The first is the boot CPU, whose features the kernel demands of all others
    (arch/x86/kernel/cpu/proc.c, arch/s390/kernel/processor.c).
    """
    match = _FLAGS.search(text)
    return frozenset(match[1].split()) if match else frozenset()


def vmx_flags(text: str) -> frozenset[str]:
    """What the first CPU's VMX can do, by the kernel's names (line `vmx flags`, since 5.6); empty without."""
    match = _VMX_FLAGS.search(text)
    return frozenset(match[1].split()) if match else frozenset()


def model(text: str) -> str:
    """What the first CPU calls itself (x86's line "model name"); empty where none says."""
    match = _MODEL.search(text)
    return match[1].strip() if match else ""


def is_arm64(text: str) -> bool:
    """Whether these are CPUs of arm64 (arch/arm64/kernel/cpuinfo.c)."""
    return _ARM64.search(text) is not None


def is_pseries(text: str) -> bool:
    """Whether this is a partition or a guest on POWER, where only the driver shows the extension."""
    return _PSERIES.search(text) is not None


def extensions(text: str) -> frozenset[Extension]:
    """The virtualization extensions that `text` shows: none or one on any real machine.

    The kernel takes `vmx` away when the firmware has it locked off. POWER has no flag for it: a
    bare-metal machine ("platform: PowerNV") has the hypervisor mode. arm64 does not tell.
    """
    seen = flags(text)
    found = {extension for extension in _BY_FLAG if extension.value in seen}
    if _POWERNV.search(text):
        found.add(Extension.HV)
    return frozenset(found)
