# SPDX-License-Identifier: LGPL-2.1-or-later
"""/proc/cpuinfo: which virtualization extension the boot CPU shows."""

from __future__ import annotations

import re

from nestd.model import Extension

# x86 says "flags" (its line "vmx flags" is another matter), s390x "features", arm64 "Features".
_FLAGS = re.compile(r"^(?:flags|[Ff]eatures)[ \t]*:(.*)$", re.MULTILINE)
_POWERNV = re.compile(r"^platform[ \t]*:[ \t]*PowerNV\b", re.MULTILINE)
_BY_FLAG = (Extension.VMX, Extension.SVM, Extension.SIE)


def flags(text: str) -> frozenset[str]:
    """The feature flags of the first CPU in `text`; empty where it names none.

    The first is the boot CPU, whose features the kernel demands of all others
    (arch/x86/kernel/cpu/proc.c, arch/s390/kernel/processor.c).
    """
    match = _FLAGS.search(text)
    return frozenset(match[1].split()) if match else frozenset()


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
