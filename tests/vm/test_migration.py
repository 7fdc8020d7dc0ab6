# SPDX-License-Identifier: LGPL-2.1-or-later
"""Why people nest: two nodes of a lab, and a guest that moves from one to the other while it runs.

The machine (L0) is emulated, its AMD-V too; from there on all is KVM: the nodes (L1) are nestd's guests, and
the guest that moves (L2) runs on the nodes' own KVM, as their QEMU has nothing else.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.vm import counter, node
from tests.vm.machine import Machine
from tests.vm.node import Node
from tests.vm.progress import Progress

pytestmark = pytest.mark.nightly

_APPEND = "console=ttyS0 quiet mitigations=off nokaslr tsc=reliable random.trust_cpu=on node=%n address=%a"
_SOME = 8  # lines, each of counter.EVERY ticks
_LINE = 9


def test_a_guest_moves_between_the_nodes_of_a_lab(machine: Machine, progress: Progress) -> None:
    """Its counter goes on where it was: no tick is missing, none is there twice, its memory came along."""
    initrd = node.initramfs(machine)
    progress(f"L0: {_machine(machine)}")
    made = machine.sh(
        f"nestctl lab create move --nodes 2 --memory 320M --kernel /boot/vmlinuz --initrd {initrd} "
        f"--append '{_APPEND}'",
        timeout=node.LIMIT,
    )
    progress(f"nestctl lab create:\n{made.stdout}")
    with _node(machine, "move-1") as here, _node(machine, "move-2") as there:
        for each in (here, there):
            progress(f"L1: {_about(machine, each)}")
        there.run("l2 receive")
        assert _nested_runs(machine) == 0
        here.run("l2 start")
        here.counted(counter.EVERY * _SOME)
        assert there.answered("l2 status", "status")["status"] == "inmigrate"
        _on_kvm(machine, here, progress)

        sent, line = here.told(f"l2 send {_address(machine, there.name)}", "before", "migration")
        went = json.loads(line)["return"]
        progress(f"the migration: {_told(went)}")
        assert went["status"] == "completed", line
        assert here.answered("l2 status", "status")["status"] == "postmigrate"
        (left,) = here.told("l2 said", "said")
        there.counted(_last(left) + counter.EVERY * _SOME)
        _on_kvm(machine, there, progress)
        assert there.answered("l2 status", "status")["status"] == "running"

        (arrived,) = there.told("l2 said", "said")
        progress(
            f"the counter: {sent} when it was sent; {left[-_LINE:]!r} the last on {here.name}; "
            f"{arrived[:_LINE]!r} the first on {there.name}, {_last(arrived):08X} when last seen"
        )
        # It may have gone in the middle of a line.
        whole = left + arrived
        assert whole[: whole.rindex(",") + 1] == counter.history(_last(whole))
        assert _last(arrived) > _last(left) >= int(sent, 16) >= counter.EVERY * _SOME
        (still,) = here.told("l2 said", "said")
        assert still == left, "it went on here, too"

    machine.sh("nestctl lab remove move", timeout=120)
    assert machine.out("nestctl", "--json", "list") == "[]"


def _machine(machine: Machine) -> str:
    model = re.search(r"^model name\s*: (.*)$", machine.text("/proc/cpuinfo"), re.MULTILINE)
    status = json.loads(machine.out("nestctl", "--json", "status"))
    release = machine.out("uname", "-r")
    assert model and status["driver"] == "kvm_amd" and status["nested"] == "on", status
    return (
        f"kernel {release} in {status['virtualization']}, which emulates the CPU ({model[1]}) "
        f"with AMD-V; {status['driver']}, nested {status['nested']}"
    )


@contextlib.contextmanager
def _node(machine: Machine, name: str) -> Iterator[Node]:
    with machine.background(["nestctl", "console", name]) as console:
        yield Node(name, console)


def _about(machine: Machine, each: Node) -> str:
    """What a node says of itself, when it is up, and nestd of it."""
    said = each.wait_for("node-ready")
    shown = json.loads(machine.out("nestctl", "--json", "show", each.name))
    assert shown["nesting"] is True
    arguments = machine.text(f"/proc/{shown['pid']}/cmdline").split("\0")
    kind = arguments[arguments.index("-machine") + 1]
    assert "accel=kvm" in kind.split(",")
    about = re.findall("^about: (.*)$", said, re.MULTILINE)[-1]
    assert "a guest of KVM" in about and "svm on 1" in about, said
    return f"{each.name} (QEMU -machine {kind} -cpu {shown['cpu']}): {about}"


def _nested_runs(machine: Machine) -> int:
    """How often L0's KVM has entered guests of its guests."""
    return int(machine.text("/sys/kernel/debug/kvm/nested_run"))


def _on_kvm(machine: Machine, each: Node, progress: Progress) -> None:
    """Tell that the counter runs on KVM in KVM: by its QEMU, by the node's KVM, and by the machine's."""
    runs = _nested_runs(machine)
    exits, accelerator = each.told("l2 status", "exits", "accelerator")
    assert json.loads(accelerator)["return"] == {"enabled": True, "present": True}
    assert int(exits) > 0
    progress(
        f"L2: on {each.name}, QEMU -accel kvm there; {each.name}'s KVM has left it {exits} times, L0's KVM "
        f"entered guests of guests {_nested_runs(machine)} times"
    )
    assert _nested_runs(machine) > runs


def _address(machine: Machine, name: str) -> str:
    shown = json.loads(machine.out("nestctl", "--json", "lab", "show", "move"))
    (address,) = (each["address"] for each in shown["nodes"] if each["name"] == name)
    return str(address).partition("/")[0]


def _told(went: dict[str, Any]) -> str:
    ram = went["ram"]
    return (
        f"{went['status']}, {went['total-time']} ms in all, {went['downtime']} ms of them standing still; "
        f"{ram['transferred']} bytes sent over the lab's network for {ram['total']} bytes of memory "
        f"({ram['normal']} pages, {ram['duplicate']} empty ones), {ram['dirty-sync-count']} rounds"
    )


def _last(said: str) -> int:
    """The last whole number in it."""
    return int(re.findall("([0-9A-F]{8}),", said)[-1], 16)
