# SPDX-License-Identifier: LGPL-2.1-or-later
"""Many kinds of machine: what GetStatus tells of each, what is in the way, and what Diagnose says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from nestd.model import DriverState, Extension, Nesting, Verdict
from tests.nesting.machines import Machine
from tests.support import systems
from tests.support.tree import COMMON_FLAGS, Tree

ON, OFF, UNSUPPORTED = Nesting.ON, Nesting.OFF, Nesting.UNSUPPORTED
MISSING, UNLOADED, LOADED, BUILTIN = (
    DriverState.MISSING,
    DriverState.UNLOADED,
    DriverState.LOADED,
    DriverState.BUILTIN,
)
NOTHING = Extension.NONE


class System(NamedTuple):
    """A machine, and what has to be said of it.

    `virt` are systemd-detect-virt's words, alone and with --vm; `obstacle` is the code; `words` stand in
    what is said of it; `fails` are the ids of the checks that fail.
    """

    build: Callable[[Tree], Tree]
    virt: tuple[str, str]
    extension: Extension
    driver: str
    state: DriverState
    nested: Nesting
    obstacle: str = ""
    words: tuple[str, ...] = ()
    fails: tuple[str, ...] = ()
    log: str = ""


# A sentence, which may begin with the name of a module.
_BEGIN = re.compile(r"[A-Z/]|kvm(_\w+)?('s)? |nestd ")
HIDDEN = "hidden-by-hypervisor"
HIDDEN_FAILS = ("extension", "hypervisor")
BARE = ("none", "none")
KVM = ("kvm", "kvm")


def hidden(build: Callable[[Tree], Tree], virt: tuple[str, str], *words: str) -> System:
    """An Intel guest that gets no vmx."""
    return System(
        build, virt, NOTHING, "", DriverState.NONE, UNSUPPORTED, HIDDEN, words, (*HIDDEN_FAILS, "driver")
    )


def no_extension(tree: Tree) -> Tree:
    return tree.amd(flags=COMMON_FLAGS)


SYSTEMS = {
    "Debian 12's cloud kernel on emulated AMD-V": System(
        lambda tree: tree.captured("debian-12-cloud"), ("qemu", "qemu"), Extension.SVM, "kvm_amd", LOADED, ON
    ),
    "Debian 13's cloud kernel on emulated AMD-V": System(
        lambda tree: tree.captured("debian-13-cloud"), ("qemu", "qemu"), Extension.SVM, "kvm_amd", LOADED, ON
    ),
    "Debian 12's cloud kernel on Bochs' i7-4770": System(
        lambda tree: tree.captured("bochs-intel"), BARE, Extension.VMX, "kvm_intel", LOADED, ON
    ),
    "Hygon": System(systems.hygon, BARE, Extension.SVM, "kvm_amd", LOADED, ON),
    "Zhaoxin": System(systems.zhaoxin, BARE, Extension.VMX, "kvm_intel", LOADED, ON),
    "Centaur": System(
        lambda tree: systems.zhaoxin(tree, "CentaurHauls"), BARE, Extension.VMX, "kvm_intel", LOADED, ON
    ),
    "s390x, as it comes": System(
        lambda tree: systems.s390x(tree).module("kvm"), BARE, Extension.SIE, "kvm", LOADED, OFF
    ),
    "s390x, nested=1": System(
        lambda tree: systems.s390x(tree).module("kvm", nested="1"), BARE, Extension.SIE, "kvm", LOADED, ON
    ),
    "s390x, z/VM without SIE": System(
        lambda tree: systems.s390x(tree, "esan3 zarch te"),
        ("zvm", "zvm"),
        *(NOTHING, "", DriverState.NONE, UNSUPPORTED, HIDDEN, ("z/VM", "SIE facility")),
        (*HIDDEN_FAILS, "driver"),
    ),
    "ppc64le, bare metal": System(
        lambda tree: systems.ppc64le(tree).module("kvm_hv"), BARE, Extension.HV, "kvm_hv", LOADED, ON
    ),
    "ppc64le, a guest that got it": System(
        lambda tree: systems.ppc64le(tree, "pSeries").module("kvm_hv", nested="N"),
        *(KVM, Extension.HV, "kvm_hv", LOADED, OFF),
    ),
    "ppc64le, PowerVM": System(
        lambda tree: systems.ppc64le(tree, "pSeries"),
        ("powervm", "powervm"),
        *(NOTHING, "", DriverState.NONE, UNSUPPORTED, HIDDEN, ("PowerVM", "partition")),
        (*HIDDEN_FAILS, "driver"),
    ),
    "arm64, as it comes": System(systems.arm64, BARE, Extension.EL2, "kvm_arm", BUILTIN, OFF),
    "arm64, kvm-arm.mode=nested": System(
        lambda tree: systems.arm64(tree, "nested").cmdline("quiet kvm-arm.mode=nested"),
        *(BARE, Extension.EL2, "kvm_arm", BUILTIN, ON),
    ),
    "arm64, kvm-arm.mode=nested on a CPU that cannot": System(
        lambda tree: systems.arm64(tree).cmdline("kvm-arm.mode=nested"),
        *(BARE, Extension.EL2, "kvm_arm", BUILTIN, OFF),
    ),
    "arm64, a guest at EL1": System(
        lambda tree: systems.arm64(tree, ""),
        ("apple", "apple"),
        *(NOTHING, "kvm_arm", BUILTIN, UNSUPPORTED, HIDDEN, ("Apple", "M3")),
        (*HIDDEN_FAILS, "kvm-device"),
    ),
    "kvm_pvm, in a container": System(
        lambda tree: tree.pvm(),
        ("docker", "none"),
        *(NOTHING, "kvm_pvm", BUILTIN, UNSUPPORTED, "driver-without-nesting", ("kvm_pvm", "no switch")),
        ("extension", "hypervisor", "driver"),
    ),
    "no extension at all": System(
        no_extension,
        *(BARE, NOTHING, "", DriverState.NONE, UNSUPPORTED, "no-extension", ("no virtualization extension",)),
        ("extension", "driver"),
    ),
    "Intel, off in the firmware": System(
        systems.firmware_off,
        *(BARE, NOTHING, "", DriverState.NONE, UNSUPPORTED, "firmware-disabled"),
        ("VMX (outside TXT) disabled by BIOS", "firmware's setup"),
        ("extension", "firmware", "driver"),
        log="Linux version 6.1\nx86/cpu: VMX (outside TXT) disabled by BIOS\nx86/cpu: SGX\n",
    ),
    "AMD, off in the firmware, a kernel before 6.7 that shows svm": System(
        lambda tree: tree.amd(),
        *(BARE, Extension.SVM, "kvm_amd", UNLOADED, OFF, "firmware-disabled"),
        ("SVM disabled (by BIOS) in MSR_VM_CR",),
        ("firmware",),
        log="kvm_amd: SVM disabled (by BIOS) in MSR_VM_CR on CPU 3\n",
    ),
    "a guest of KVM": hidden(systems.guest, KVM, "runs in KVM,", "-cpu host", "host-passthrough"),
    "a guest of emulated QEMU": hidden(systems.guest, ("qemu", "qemu"), "QEMU without KVM", "+svm"),
    "a container in a guest of KVM": hidden(systems.guest, ("docker", "kvm"), "runs in KVM,"),
    "a guest of OpenStack": hidden(
        lambda tree: systems.guest(tree, "OpenStack Foundation", "OpenStack Nova"), KVM, "nova.conf"
    ),
    "Hyper-V": hidden(
        lambda tree: systems.guest(tree, "Microsoft Corporation", "Virtual Machine", "1234"),
        *(("microsoft", "microsoft"), "Hyper-V", "-ExposeVirtualizationExtensions $true"),
    ),
    "Azure": hidden(systems.azure, ("microsoft", "microsoft"), "Azure", "VM size"),
    "WSL 2": hidden(
        lambda tree: systems.wsl2(tree, nested=False).without_module_support(),
        *(("wsl", "microsoft"), "WSL 2", "nestedVirtualization=true"),
    ),
    "VMware": hidden(systems.guest, ("vmware", "vmware"), 'vhv.enable = "TRUE"'),
    "VirtualBox": hidden(systems.guest, ("oracle", "oracle"), "--nested-hw-virt on"),
    "Xen, HVM": hidden(systems.xen_guest, ("xen", "xen"), "nestedhvm=1"),
    "Xen, dom0": hidden(systems.xen_dom0, BARE, "dom0", "without Xen"),
    "Amazon": hidden(
        lambda tree: systems.guest(tree, "Amazon EC2", "m5.large"), ("amazon", "amazon"), "C8i", "bare-metal"
    ),
    "Google": hidden(
        lambda tree: systems.guest(tree, "Google", "Google Compute Engine"), KVM, "enableNestedVirtualization"
    ),
    "bhyve": hidden(systems.guest, ("bhyve", "bhyve"), "bhyve gives its guests no"),
    "Parallels": hidden(systems.guest, ("parallels", "parallels"), "Parallels"),
    "a hypervisor that systemd does not know": hidden(systems.guest, BARE, "cannot be named"),
    "a word that nestd does not know": hidden(systems.guest, ("sre", "sre"), "runs in sre,"),
    "WSL 2 with vmx": System(
        lambda tree: systems.wsl2(tree).without_module_support(),
        *(("wsl", "microsoft"), Extension.VMX, "kvm_intel", BUILTIN, ON),
    ),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_systems(tmp_path: Path, name: str) -> None:
    system = SYSTEMS[name]
    machine = Machine.of(system.build(Tree(tmp_path)))
    machine.tools.virtualization(*system.virt)
    machine.tools.kernel_log(system.log)
    status, checks = machine.diagnose()
    assert (status.extension, status.driver, status.driver_state, status.nested, status.obstacle) == (
        *(system.extension, system.driver, system.state, system.nested, system.obstacle),
    )
    assert status.virtualization == system.virt[0]
    if system.extension is Extension.EL2:
        asked = "mode=nested" in machine.tree.read("/proc/cmdline")
        assert status.nested_at_boot is (ON if asked else OFF)
    said = f"{status.obstacle_meaning}. {status.obstacle_remedy}"
    assert [word for word in system.words if word not in said] == []
    assert bool(status.obstacle_meaning) is bool(status.obstacle_remedy) is bool(system.obstacle)
    assert {check.id for check in checks if check.verdict is Verdict.FAIL} == set(system.fails)
    for check in checks:
        assert bool(check.remedy) is (check.verdict is not Verdict.PASS), check
        for text in (check.message, check.remedy):
            assert not text or (_BEGIN.match(text) and text.endswith(".") and "  " not in text), text
    assert len({check.id for check in checks}) == len(checks)
