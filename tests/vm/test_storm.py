# SPDX-License-Identifier: LGPL-2.1-or-later
"""A storm: four clients enable, disable, read and cancel while somebody reloads the driver by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.vm.machine import Machine
from tests.vm.test_spine import DROPIN, assert_truth, prop

SECONDS = 60
CLIENTS = ("enable", "disable", "read", "cancel")
MEMORY = 2 << 10  # KiB
PROGRAM = Path(__file__).with_name("storm_client.py")
BY_HAND = (
    "while :; do modprobe -r kvm_amd; modprobe kvm_amd nested=$((RANDOM % 2)); sleep 0.$((RANDOM % 10)); done"
)
# What the storm may be told: somebody else is in the way, or has taken the driver away just now.
OWN = "org.nestd1.Error."
TOLD = {
    "reply",
    *(OWN + name for name in ("InUse", "Busy", "NotSupported", "ReloadFailed", "RollbackFailed")),
}


def size(machine: Machine) -> dict[str, int]:
    """Descriptors, KiB of memory of its own, threads and children of nestd."""
    pid = machine.out("systemctl", "show", "-P", "MainPID", "nestd.service")
    text = machine.sh(
        f"ls /proc/{pid}/fd | wc -l; awk '/^Private/ {{n += $2}} END {{print n}}' /proc/{pid}/smaps_rollup; "
        "systemctl show -P TasksCurrent nestd.service"
    ).stdout
    return {
        "pid": int(pid),
        **dict(zip(("descriptors", "memory", "tasks"), map(int, text.split()), strict=True)),
    }


def storm(machine: Machine, seconds: int) -> dict[str, dict[str, int]]:
    """What each client was told, how often."""
    with ExitStack() as stack:
        stack.enter_context(machine.background(["bash", "-c", BY_HAND]))
        stack.enter_context(machine.background(["python3", "/tmp/in/storm", "hold", str(seconds)]))
        running = {
            kind: machine.start(["python3", "/tmp/in/storm", kind, str(seconds)], timeout=seconds + 200)
            for kind in CLIENTS
        }
        ended = {kind: each.wait() for kind, each in running.items()}
    assert [(kind, each.stderr) for kind, each in ended.items() if each.code != 0] == []
    return {kind: json.loads(each.stdout) for kind, each in ended.items()}


def test_a_storm(machine: Machine, progress: Callable[[str], None]) -> None:
    machine.push(("storm", PROGRAM.read_bytes()), to="/tmp/in")
    # What is loaded for the first time, and what Python keeps, is no leak.
    storm(machine, 10)
    machine.sh("nestctl cancel")
    before = size(machine)
    told = storm(machine, SECONDS)
    progress(f"the storm was told {told}")
    for kind, answers in told.items():
        assert set(answers) <= TOLD, (kind, answers)
        assert answers["reply"] > 0, kind
    assert set(told["read"]) == {"reply"}

    machine.sh("nestctl cancel")
    # The configuration is whole, and what its last change has told.
    policy = prop(machine, "Policy")
    assert prop(machine, "NestedAtBoot") == policy
    words = {"on": "options kvm_amd nested=1", "off": "options kvm_amd nested=0"}
    assert machine.text(DROPIN).splitlines()[-1] == words[policy]
    assert machine.sh("ls /var/lib/nestd").stdout.split() in ([], ["change"])
    # The driver is there or not; what nestd says of it is so.
    machine.sh("modprobe kvm_amd")
    for method, nested in (("disable", "off"), ("enable", "on")):
        machine.sh(f"nestctl {method}")
        assert_truth(machine, nested, nested)
    assert machine.sh("ls /var/lib/nestd").stdout == ""
    checks = {
        row["id"]: row["verdict"]
        for row in json.loads(machine.run(["nestctl", "--json", "diagnose"], check=False).stdout)
    }
    assert (checks["change"], checks["pending"], checks["drift"]) == ("pass", "pass", "pass")

    after = size(machine)
    assert after["memory"] <= before["memory"] + MEMORY, (before, after)
    assert {**after, "memory": 0} == {**before, "memory": 0}
    said = machine.out("journalctl", "-u", "nestd.service", "-o", "cat", "--no-pager")
    assert (
        "Traceback" not in said and " failed, and nobody" not in said and "callback of the loop" not in said
    )
