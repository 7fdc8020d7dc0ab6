# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import pytest

from nestd.text import modules

DEP = """\
kernel/arch/x86/kvm/kvm.ko.zst: kernel/virt/lib/irqbypass.ko.zst
kernel/arch/x86/kvm/kvm-amd.ko.zst: kernel/drivers/crypto/ccp/ccp.ko.zst kernel/arch/x86/kvm/kvm.ko.zst
updates/dkms/not-kvm-amd.ko:
kernel/x/kvmgt.ko: kernel/a/kvm_intel_not.ko
"""
BUILTIN = "kernel/fs/ext4/ext4.ko\nkernel/arch/x86/kvm/kvm-intel.ko\n"


@pytest.mark.parametrize(
    ("text", "module", "wanted"),
    [
        (DEP, "kvm_amd", True),
        (DEP, "kvm-amd", True),
        (DEP, "kvm", True),
        (DEP, "not_kvm_amd", True),
        (DEP, "kvm_intel", False),
        (DEP, "irqbypass", False),
        (BUILTIN, "kvm_intel", True),
        (BUILTIN, "kvm", False),
        ("kvm-amd.ko:\n", "kvm_amd", True),
        ("extra/kvm_amd.ko.gz:", "kvm_amd", True),
        ("kernel/arch/x86/kvm/kvm-am", "kvm_amd", False),
        ("", "kvm_amd", False),
        ("\udcff/kvm-amd.ko:\n", "kvm_amd", True),
        (DEP, "kvm.*", False),
    ],
)
def test_has(text: str, module: str, wanted: bool) -> None:
    assert modules.has(text, module) is wanted


def test_depends_on() -> None:
    assert modules.depends_on(DEP, "kvm_amd") == ("ccp", "kvm")
    assert modules.depends_on(DEP, "kvm") == ("irqbypass",)
    assert modules.depends_on(DEP, "not-kvm-amd") == ()
    assert modules.depends_on(DEP, "kvm_intel") == ()
    assert modules.depends_on(BUILTIN, "kvm_intel") == ()
    assert modules.depends_on("", "kvm") == ()
