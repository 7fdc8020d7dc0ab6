# SPDX-License-Identifier: LGPL-2.1-or-later
"""Diagnose and ListHolders over the bus."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.clients import ALICE, NOBODY, Client
from tests.support.daemon import TOP, Daemon
from tests.support.privatebus import PrivateBus
from tests.support.tools import Tools
from tests.support.tree import Tree

pytestmark = pytest.mark.bus

VM = ("/dev/kvm", "anon_inode:kvm-vm", "anon_inode:kvm-vcpu:0")


def documented() -> set[str]:
    """The ids in nestd(8)."""
    chapter = (TOP / "data" / "nestd.8").read_text().partition(".Sh CHECKS")[2].partition(".Sh ")[0]
    lines = re.findall(r"^\.It Cm (.*)$", chapter, re.MULTILINE)
    return {word for line in lines for word in line.split(" , ")}


def diagnose(client: Client) -> dict[str, tuple[str, str, str]]:
    [rows] = client.call("Diagnose")
    return {row[0]: tuple(row[1:]) for row in rows}


@pytest.mark.parametrize("uid", [0, ALICE, NOBODY])
def test_everybody_may_ask(bus: PrivateBus, daemon: Daemon, uid: int) -> None:
    with Client(bus.address, uid) as client:
        rows = diagnose(client)
    assert rows["running"][0] == "pass"
    assert rows["extension"] == ("pass", "The CPU has svm.", "")
    assert set(rows) <= documented()


def test_it_looks_anew(root: Client, tree: Tree) -> None:
    """/dev/kvm goes, without any event, and comes again."""
    assert diagnose(root)["kvm-device"][0] == "pass"
    tree.write("/.kernel/kvm-refuses", "2")
    verdict, message, remedy = diagnose(root)["kvm-device"]
    assert (verdict, "/dev/kvm is missing" in message, "mknod" in remedy) == ("fail", True, True)
    # What it found is told everywhere.
    [status] = root.call("GetStatus")
    assert status["obstacle"] == "kvm-unusable"
    assert "/dev/kvm is missing" in status["obstacle-meaning"]
    tree.gone("/.kernel/kvm-refuses")
    assert diagnose(root)["kvm-device"][0] == "pass"


def test_the_obstacle_of_a_guest_names_its_hypervisor(bus: PrivateBus, tmp_path: Path) -> None:
    tree = Tree(tmp_path / "guest").amd(flags="fpu lm hypervisor")
    tree.path("/etc/modprobe.d").mkdir(parents=True)
    Tools(tree).virtualization("vmware")
    with Daemon(bus, tree), Client(bus.address) as client:
        [status] = client.call("GetStatus")
        assert status["obstacle"] == "hidden-by-hypervisor"
        assert "VMware" in status["obstacle-meaning"]
        assert "vhv.enable" in status["obstacle-remedy"]
        assert diagnose(client)["hypervisor"][0] == "fail"


def test_many_at_once_cost_one(root: Client, tools: Tools, daemon: Daemon) -> None:
    before = len(tools.calls())
    calls = [root.send("Diagnose") for _ in range(10)]
    answers = [root.reply(call) for call in calls]
    assert all(answer == answers[0] for answer in answers)
    # The first may be answered before the last is read; never does each have a run of its own.
    assert len(tools.calls()) - before < len(calls)


def test_holders_in_machines_and_containers(root: Client, tree: Tree) -> None:
    container = "docker-" + "ab" * 32 + ".scope"
    tree.process(
        200,
        "qemu-system-x86",
        *VM,
        cgroup="0::/machine.slice/machine-qemu\\x2d3\\x2dweb.scope/libvirt/emulator\n",
    )
    tree.process(31, "qemu", *VM, cgroup=f"0::/system.slice/{container}/system.slice/inner.service\n")
    tree.process(4, "vmm", *VM[1:], cgroup="0::/user.slice/user-1000.slice/session-2.scope\n")
    [holders] = root.call("ListHolders")
    assert [tuple(holder) for holder in holders] == [
        (4, "vmm", "session-2.scope", ""),
        (31, "qemu", container, "abababababab"),
        (200, "qemu-system-x86", "machine-qemu\\x2d3\\x2dweb.scope", "web"),
    ]
    assert "web" in diagnose(root)["holders"][1]
