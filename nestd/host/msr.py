# SPDX-License-Identifier: LGPL-2.1-or-later
"""Model-specific registers of the first CPU (msr(4)): what the firmware has set and locked.

Sources: arch/x86/include/asm/msr-index.h; Intel SDM volume 4, table 2-2 (IA32_FEATURE_CONTROL); AMD APM
volume 2, section 15.30.1 (VM_CR).
"""

from __future__ import annotations

import os

from nestd.host.root import Root

_FEATURE_CONTROL = 0x3A
_LOCKED, _VMX_OUTSIDE_SMX = 1 << 0, 1 << 2
_VM_CR = 0xC0010114
_SVMDIS = 1 << 4


def locked_off(root: Root) -> str:
    """What says that the firmware keeps the extension off, as a clause; "" if nothing says so.

    It takes CAP_SYS_RAWIO and the module msr, which nestd.service has not: then it is "". So it is
    where the CPU has no such register.
    """
    control, vm_cr = _read(root, _FEATURE_CONTROL), _read(root, _VM_CR)
    if control is not None and control & _LOCKED and not control & _VMX_OUTSIDE_SMX:
        return "the register IA32_FEATURE_CONTROL is locked without VMX"
    if vm_cr is not None and vm_cr & _SVMDIS:
        return "the register VM_CR has SVM disabled"
    return ""


def _read(root: Root, number: int) -> int | None:
    try:
        device = os.open(root.path("/dev/cpu/0/msr"), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        data = os.pread(device, 8, number)
    except OSError:  # EIO: there is no such register
        return None
    finally:
        os.close(device)
    return int.from_bytes(data, "little") if len(data) == 8 else None
