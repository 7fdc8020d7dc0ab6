# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is in the way of a machine that has the extension, and the words for it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nestd.model import KvmAnswer, Obstacle
from nestd.nesting import obstacles
from nestd.nesting.circumstances import Circumstances
from tests.nesting.machines import Machine
from tests.support.tree import Tree

LOCKED = "/sys/kernel/security/lockdown"
ENFORCED = "/sys/module/module/parameters/sig_enforce"


def unsigned(tree: Tree) -> Tree:
    return tree.amd().loadable("kvm_amd", needs=("kvm",), extension="svm", signer="", nested="1")


# The machine, the obstacle, and words of its meaning.
CASES: dict[str, tuple[Callable[[Tree], Tree], str, str]] = {
    "not loaded, and nothing is in the way": (lambda tree: tree.amd(), "", ""),
    "install /bin/false": (
        lambda tree: tree.amd().dropin("no.conf", "# no\ninstall kvm-amd /bin/false\n"),
        "driver-missing",
        "/etc/modprobe.d/no.conf:2 says install kvm_amd /bin/false",
    ),
    "install of what the driver needs": (
        lambda tree: tree.amd().dropin("no.conf", "install kvm /usr/bin/true\n"),
        "driver-missing",
        "install kvm /usr/bin/true",
    ),
    "an install line that loads it": (
        lambda tree: tree.amd().dropin("a.conf", "install kvm_amd /sbin/modprobe -i kvm_amd\n"),
        "",
        "",
    ),
    "a blacklist only stops udev": (
        lambda tree: tree.amd().dropin("b.conf", "blacklist kvm_amd\ninstall other /bin/false\n"),
        "",
        "",
    ),
    "install /bin/false, but it is loaded all the same": (
        lambda tree: tree.amd().dropin("no.conf", "install kvm_amd /bin/false\n").module("kvm_amd"),
        "",
        "",
    ),
    "module_blacklist= of the kernel": (
        lambda tree: tree.amd().cmdline("quiet module_blacklist=nouveau,kvm_amd"),
        "driver-missing",
        "module_blacklist=kvm_amd",
    ),
    "unsigned, and nobody minds": (lambda tree: unsigned(tree).write(LOCKED, "[none] integrity\n"), "", ""),
    "unsigned under lockdown": (
        lambda tree: unsigned(tree).write(LOCKED, "none [integrity] confidentiality\n"),
        "module-signature",
        "locked down (integrity)",
    ),
    "unsigned with sig_enforce": (
        lambda tree: unsigned(tree).write(ENFORCED, "Y\n"),
        "module-signature",
        "module.sig_enforce is on",
    ),
    "signed under lockdown": (lambda tree: tree.amd().write(LOCKED, "none [integrity]\n"), "", ""),
    "VirtualBox runs": (
        lambda tree: tree.amd().module("vboxdrv", refcnt=1),
        "vt-held-by-other",
        "VirtualBox",
    ),
    "VirtualBox is only installed": (lambda tree: tree.amd().module("vboxdrv"), "", ""),
    "VirtualBox runs beside a driver that is loaded": (
        lambda tree: tree.amd().module("kvm_amd").module("vboxdrv", refcnt=1),
        "",
        "",
    ),
    "modules are locked": (
        lambda tree: tree.amd().modules_disabled(),
        "module-loading-disabled",
        "kernel.modules_disabled",
    ),
    "no module": (
        lambda tree: tree.amd().without("kvm_amd"),
        "driver-missing",
        "the running kernel has no module kvm_amd",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_obstacles(tmp_path: Path, name: str) -> None:
    build, obstacle, words = CASES[name]
    machine = Machine.of(build(Tree(tmp_path)))
    status = machine.read(machine.gather()).status
    assert (status.obstacle, bool(status.obstacle_remedy)) == (obstacle, bool(obstacle))
    assert words in status.obstacle_meaning


@pytest.mark.parametrize(
    ("number", "meaning", "remedy"),
    [
        (errno.ENOENT, "/dev/kvm is missing, though kvm_amd runs", "mknod"),
        (errno.EACCES, "is forbidden", "DeviceAllow"),
        (errno.EPERM, "is forbidden", "DeviceAllow"),
        (errno.ENODEV, "no driver answers", "journalctl"),
        (errno.ENXIO, "no driver answers", "journalctl"),
        (errno.ENOTTY, os.strerror(errno.ENOTTY), "journalctl"),
    ],
)
def test_dev_kvm(tmp_path: Path, number: int, meaning: str, remedy: str) -> None:
    machine = Machine.of(Tree(tmp_path).amd().module("kvm_amd"))
    machine.kvm.refuse(number)
    status = machine.read().status
    assert status.obstacle is Obstacle.KVM_UNUSABLE
    assert meaning in status.obstacle_meaning
    assert remedy in status.obstacle_remedy


def test_a_kvm_of_another_time() -> None:
    why = obstacles.unusable(KvmAnswer(11, 0, frozenset()), "kvm_amd")
    assert "version 11" in why.meaning


def test_where_the_driver_runs_only_one_program_is_asked(tmp_path: Path) -> None:
    machine = Machine.of(Tree(tmp_path).amd().module("kvm_amd"))
    machine.tools.virtualization("kvm")
    assert machine.gather() == Circumstances("kvm")
    assert machine.tools.calls() == [["systemd-detect-virt"]]


def test_without_any_program_there_is_still_an_answer(tmp_path: Path) -> None:
    machine = Machine.of(unsigned(Tree(tmp_path)).write(ENFORCED, "Y\n"))
    for name in ("systemd-detect-virt", "journalctl", "modinfo"):
        machine.tools.without(name)
    assert machine.gather() == Circumstances("")


def test_a_program_that_fails_is_no_evidence(tmp_path: Path) -> None:
    machine = Machine.of(unsigned(Tree(tmp_path)).write(ENFORCED, "Y\n"))
    machine.tools.fail("systemd-detect-virt", code=2, words="broken")
    machine.tools.fail("journalctl", code=2, words="VMX disabled by BIOS")
    assert machine.gather() == Circumstances("", signature="module.sig_enforce is on")


def test_every_obstacle_that_needs_no_evidence_has_its_words() -> None:
    for obstacle in (Obstacle.MODULE_LOADING_DISABLED, Obstacle.DRIVER_WITHOUT_NESTING):
        assert ". To do: " in obstacles.of(obstacle, "kvm_amd")
