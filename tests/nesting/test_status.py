# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is told of a machine, from the tree that a kernel would show."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from nestd.model import DriverState, Extension, Nesting, Obstacle, Policy, Status
from nestd.nesting import dropin
from tests.nesting.machines import Machine
from tests.support.tree import Tree

ON, OFF, UNSUPPORTED = Nesting.ON, Nesting.OFF, Nesting.UNSUPPORTED
CASES: list[tuple[str, Callable[[Tree], Tree], dict[str, object]]] = [
    (
        "AMD, as Debian boots it",
        lambda tree: tree.amd().module("kvm_amd", refcnt=2),
        {
            "extension": Extension.SVM,
            "driver": "kvm_amd",
            "driver_state": DriverState.LOADED,
            "nested": ON,
            "nested_at_boot": ON,
            "boot_source": "kernel default",
            "obstacle": Obstacle.NONE,
            "policy": Policy.UNMANAGED,
            "guest_extension": True,
            "kvm_api": 12,
            "users": 2,
            "reboot_required": False,
        },
    ),
    (
        "Intel, off by hand, on at boot",
        lambda tree: tree.intel().module("kvm_intel", nested="N"),
        {"driver": "kvm_intel", "nested": OFF, "nested_at_boot": ON, "reboot_required": False},
    ),
    (
        "a drop-in decides the next boot, and the command line beats it",
        lambda tree: (
            tree.amd()
            .module("kvm_amd")
            .dropin("kvm.conf", "# x\noptions kvm-amd nested=0\n")
            .cmdline("quiet kvm-amd.nested=1")
        ),
        {
            "nested_at_boot": ON,
            "boot_source": "kernel command line",
            "overridden": ("/etc/modprobe.d/kvm.conf:2",),
        },
    ),
    (
        "nestd's drop-in is the policy",
        lambda tree: (
            tree.amd().module("kvm_amd", nested="0").dropin("zz-nestd.conf", "options kvm_amd nested=0\n")
        ),
        {
            "policy": Policy.OFF,
            "nested": OFF,
            "nested_at_boot": OFF,
            "boot_source": f"{dropin.PATH}:1",
        },
    ),
    (
        "not loaded",
        lambda tree: tree.amd(),
        {"driver_state": DriverState.UNLOADED, "nested": OFF, "nested_at_boot": ON, "kvm_api": -1},
    ),
    (
        "the module is not installed",
        lambda tree: tree.amd().without("kvm_amd"),
        {
            "driver": "kvm_amd",
            "driver_state": DriverState.MISSING,
            "nested": UNSUPPORTED,
            "nested_at_boot": UNSUPPORTED,
            "obstacle": Obstacle.DRIVER_MISSING,
        },
    ),
    (
        "both drivers built in, on AMD: kvm_intel's Y means nothing",
        lambda tree: (
            tree.amd().builtin("kvm").builtin("kvm_amd", nested="0").builtin("kvm_intel", nested="Y")
        ),
        {
            "driver": "kvm_amd",
            "driver_state": DriverState.BUILTIN,
            "nested": OFF,
            "nested_at_boot": ON,
            "reboot_required": True,
        },
    ),
    (
        "built in: modprobe.d does not count, the command line does",
        lambda tree: (
            tree.amd()
            .builtin("kvm_amd", nested="0")
            .dropin("a.conf", "options kvm_amd nested=1\n")
            .cmdline("kvm_amd.nested=0")
        ),
        {"nested_at_boot": OFF, "boot_source": "kernel command line", "overridden": ()},
    ),
    (
        "kvm_pvm built in, no vmx or svm, no module support",
        lambda tree: tree.pvm(),
        {
            "extension": Extension.NONE,
            "driver": "kvm_pvm",
            "driver_state": DriverState.BUILTIN,
            "nested": UNSUPPORTED,
            "nested_at_boot": UNSUPPORTED,
            "obstacle": Obstacle.DRIVER_WITHOUT_NESTING,
            "kvm_api": 12,
            "guest_extension": False,
        },
    ),
    (
        "no extension and no driver",
        lambda tree: tree.amd(flags="fpu lm"),
        {
            "extension": Extension.NONE,
            "driver": "",
            "driver_state": DriverState.NONE,
            "nested": UNSUPPORTED,
            "obstacle": Obstacle.NO_EXTENSION,
        },
    ),
    (
        "modules are locked while nesting is off",
        lambda tree: tree.amd().module("kvm_amd", nested="0").modules_disabled(),
        {"nested": OFF, "obstacle": Obstacle.MODULE_LOADING_DISABLED, "reboot_required": True},
    ),
    (
        "modules are locked while nesting is on: nothing is in the way of it",
        lambda tree: tree.amd().module("kvm_amd").modules_disabled(),
        {"nested": ON, "obstacle": Obstacle.NONE},
    ),
]


@pytest.mark.parametrize(("build", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_truth(tmp_path: Path, build: Callable[[Tree], Tree], expected: dict[str, object]) -> None:
    status = Machine.of(build(Tree(tmp_path))).read().status
    assert {name: getattr(status, name) for name in expected} == expected


def test_kvm_that_does_not_answer_is_an_obstacle(tmp_path: Path) -> None:
    machine = Machine.of(Tree(tmp_path).amd().module("kvm_amd"))
    machine.kvm.refuse(errno.EACCES)
    status = machine.read().status
    # The parameter is then all that is known.
    assert (status.nested, status.obstacle, status.kvm_api) == (ON, Obstacle.KVM_UNUSABLE, -1)


def test_what_kvm_says_counts_more_than_the_parameter(tmp_path: Path) -> None:
    """A driver that shows nested=1 and offers guests nothing gives no nesting."""

    tree = Tree(tmp_path).amd().module("kvm_amd", nested="1")
    machine = Machine.of(tree)
    lying = Machine.of(Tree(tmp_path / "other").amd().module("kvm_amd", nested="0"))
    host = machine.host
    mixed = Machine(
        tree,
        machine.tools,
        lying.kvm,
        type(host)(host.root, host.commands, host.kmod, lying.kvm, host.release),
    )
    assert mixed.read().status.nested is OFF


def test_an_unloaded_driver_is_never_asked(tmp_path: Path) -> None:
    """Opening a static /dev/kvm would make the kernel load kvm."""
    machine = Machine.of(Tree(tmp_path).amd())
    machine.read()
    assert machine.kvm.asked == 0


def test_a_status_is_a_value(tmp_path: Path) -> None:
    machine = Machine.of(Tree(tmp_path).amd().module("kvm_amd"))
    assert isinstance(machine.read().status, Status)
    assert machine.read().status == machine.read().status
