# SPDX-License-Identifier: LGPL-2.1-or-later
"""nestctl watch: what really happens to the driver, a guest and nestd, for a person and in JSON."""

from __future__ import annotations

import json

from tests.vm.machine import Machine
from tests.vm.test_guests import IDLE

_Wanted = tuple[str, dict[str, object]]
# What a change of the setting has to tell, in this order: the rest (steps, properties) lies between.
_OFF: list[_Wanted] = [
    ("module", {"action": "remove", "module": "kvm_amd"}),
    ("module", {"action": "add", "module": "kvm_amd"}),
    ("property-changed", {"property": "nested", "from": "on", "to": "off"}),
    ("job-ended", {"operation": "disable", "success": True}),
]
_DRIFT: list[_Wanted] = [("drift", {"expected": "off", "actual": "on"})]
_GUEST: list[_Wanted] = [
    ("guest-added", {"name": "demo"}),
    ("guest-exited", {"name": "demo"}),
]
_AGAIN: list[_Wanted] = [("nestd-gone", {}), ("nestd-back", {})]


def told(said: str, wanted: list[_Wanted]) -> None:
    """The wanted events are among the lines, in their order; AssertionError names the first that is not."""
    rest = iter([json.loads(line) for line in said.splitlines()])
    for name, values in wanted:
        assert any(one["event"] == name and values.items() <= one.items() for one in rest), (name, said)


def test_it_tells_what_happens_and_goes_on_over_a_restart(machine: Machine) -> None:
    with (
        machine.background(["nestctl", "watch"], user="alice") as person,
        machine.background(["nestctl", "--json", "watch"]) as script,
    ):
        person.wait_for("nesting is on; at the next boot on; kvm_amd loaded", 60)
        script.wait_for('"event": "start"', 60)
        machine.run(["nestctl", "disable"])
        machine.sh("modprobe -r kvm_amd; modprobe kvm_amd nested=1")
        machine.run(["nestctl", "enable"])
        machine.sh(f"nestctl launch demo {IDLE}; nestctl kill demo", timeout=240)
        machine.sh("systemctl restart nestd.service")
        words = person.wait_for("nestd is back", 60)
        lines = script.wait_for('"event": "nestd-back"', 60)
        machine.run(["nestctl", "disable", "--runtime"])
        person.wait_for("disable: done", 60)
        assert bytes(person.stderr + script.stderr) == b""
    told(lines.rpartition("\n")[0], [*_OFF, *_DRIFT, *_GUEST, *_AGAIN])
    for line in (
        "module kvm_amd was unloaded",
        "nesting: on → off",
        "nesting is on, and nestd was told off: ",
        "guest demo is there: ",
        "QEMU was ended by signal",
        "nestd went away",
    ):
        assert line in words, (line, words)
