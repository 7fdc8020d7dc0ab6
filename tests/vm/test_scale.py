# SPDX-License-Identifier: LGPL-2.1-or-later
"""Many real guests, at once and one after the other: nothing is left, and the machine is as before."""

from __future__ import annotations

import os

import pytest

from tests.vm.machine import Machine
from tests.vm.test_guests import IDLE, complaints
from tests.vm.test_pending import wait_until

pytestmark = pytest.mark.nightly

# Fewer by hand, to see the test itself: a start and an end take seconds under emulation.
MANY = int(os.environ.get("NESTD_SCALE_MANY", "50"))
ROUNDS = int(os.environ.get("NESTD_SCALE_ROUNDS", "200"))
_HOUR = 3600.0

_CENSUS = """
pid=$(systemctl show -P MainPID nestd.service)
echo "descriptors $(ls /proc/$pid/fd | wc -l)"
echo "threads $(ls /proc/$pid/task | wc -l)"
echo "matches $(busctl call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus.Debug.Stats \\
    GetConnectionStats s org.nestd1 | grep -o '"MatchRules" u [0-9]*')"
echo "objects $(nestctl --json list --all | grep -c '"name"')"
echo "files $(find /run/nestd -type f -o -type s | wc -l)"
echo "units $(systemctl list-units --all --no-legend 'nestd-guest-*' | wc -l)"
echo "machines $(machinectl list --no-legend | wc -l)"
echo "users $(cat /sys/module/kvm_amd/refcnt)"
"""


def census(machine: Machine) -> str:
    """What could leak, when the journal was asked for all last words."""
    wait_until(machine, "$(pgrep -c journalctl) == 0")
    return machine.sh(_CENSUS, timeout=120).stdout


def all_of(machine: Machine, command: str) -> None:
    """Run nestctl for each guest, a few at a time."""
    machine.sh(f"seq {MANY} | xargs -P 6 -I N nestctl {command}", timeout=_HOUR)


def test_many_at_once_and_many_in_a_row(machine: Machine) -> None:
    all_of(machine, f"launch gN {IDLE}")
    assert machine.sh("nestctl list | grep -c running").stdout.strip() == str(MANY)
    crowded = census(machine)
    machine.sh("systemctl kill --signal=KILL nestd.service; sleep 1; systemctl start nestd.service")
    wait_until(machine, f"$(nestctl list | grep -c running) == {MANY}")
    all_of(machine, "kill gN")
    ended = census(machine)
    assert "units 0\nmachines 0\nusers 0\n" in ended
    machine.sh(
        f"for i in $(seq {ROUNDS}); do n=$((i % {MANY} + 1));"
        f" nestctl launch g$n {IDLE} > /dev/null; nestctl kill g$n; done",
        timeout=_HOUR,
    )
    assert census(machine) == ended
    all_of(machine, f"launch gN {IDLE}")
    assert census(machine) == crowded
    all_of(machine, "kill gN")
    assert complaints(machine) == ""
