# SPDX-License-Identifier: LGPL-2.1-or-later
"""Many real guests, at once and one after the other: nothing is left, and the machine is as before."""

from __future__ import annotations

import os
from typing import NamedTuple

import pytest

from tests.vm.machine import Machine
from tests.vm.progress import Progress
from tests.vm.test_guests import complaints
from tests.vm.test_pending import wait_until
from tests.vm.test_storm import size

pytestmark = pytest.mark.nightly

# Fewer by hand, to see the test itself: a start and an end take seconds under emulation.
MANY = int(os.environ.get("NESTD_SCALE_MANY", "50"))
ROUNDS = int(os.environ.get("NESTD_SCALE_ROUNDS", "200"))
_HOUR = 3600.0
# A machine that halts with its first instruction: fifty firmwares are more than an emulated processor can do.
STILL = "--memory 16M --extra-arg=-bios --extra-arg=/var/tmp/still.rom"
_STILL = r"""
python3 - << 'END'
from pathlib import Path
# The last 16 bytes are where the processor begins: cli; hlt; jmp to the hlt.
Path("/var/tmp/still.rom").write_bytes(bytes.fromhex("faf4ebfd").rjust(0xFFF4, b"\0").ljust(0x10000, b"\0"))
END
chmod 644 /var/tmp/still.rom
"""

_TAKEN = "systemctl show -P CPUUsageNSec nestd.service"
_STATUSES = f"""
{_TAKEN}
for i in $(seq 100); do
    busctl call org.nestd1 /org/nestd1 org.nestd1.Manager GetStatus > /dev/null
done
{_TAKEN}
"""
# KiB. A guest is some objects; the rest is what Python keeps for the next ones.
_MORE = 4096
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


@pytest.fixture
def quiet(machine: Machine) -> Machine:
    """The machine, with a firmware for guests that do nothing."""
    machine.sh(_STILL)
    return machine


def census(machine: Machine) -> str:
    """What could leak, when the journal was asked for all last words."""
    wait_until(machine, "$(pgrep -c journalctl) == 0")
    return machine.sh(_CENSUS, timeout=120).stdout


class Price(NamedTuple):
    """What nestd costs: KiB of its own, and milliseconds of its processor's time for a hundred statuses."""

    memory: int
    statuses: int


def price(machine: Machine) -> Price:
    taken = machine.sh(_STATUSES).stdout.split()
    return Price(size(machine)["memory"], (int(taken[1]) - int(taken[0])) // 1_000_000)


def hardly_more(now: Price, before: Price) -> bool:
    """Whether it costs no more than before: twice is what an emulated processor does by itself at times."""
    return now.statuses < 2 * before.statuses and now.memory < before.memory + _MORE


def all_of(machine: Machine, command: str) -> None:
    """Run nestctl for each guest, two at a time."""
    machine.sh(f"seq {MANY} | xargs -P 2 -I N nestctl {command}", timeout=_HOUR)


def test_many_at_once(quiet: Machine, progress: Progress) -> None:
    machine = quiet
    machine.sh(f"nestctl launch first {STILL}; nestctl kill first", timeout=_HOUR)
    alone = price(machine)
    all_of(machine, f"launch gN {STILL}")
    assert machine.sh("nestctl list | grep -c running").stdout.strip() == str(MANY)
    crowded = census(machine)
    among = price(machine)
    progress(f"alone {alone}; among {MANY} {among}")
    assert hardly_more(among, alone)
    machine.sh("systemctl kill --signal=KILL nestd.service; sleep 1; systemctl start nestd.service")
    running = f"until [ $(nestctl list | grep -c running) = {MANY} ]; do sleep 1; done"
    machine.sh(running, timeout=600)  # each is asked about, and this systemd takes a second for that
    all_of(machine, "kill gN")
    ended = census(machine)
    assert "units 0\nmachines 0\nusers 0\n" in ended
    all_of(machine, f"launch gN {STILL}")
    assert census(machine) == crowded
    all_of(machine, "kill gN")
    assert census(machine) == ended
    assert complaints(machine) == ""


def test_many_in_a_row(quiet: Machine, progress: Progress) -> None:
    machine = quiet
    each = f"nestctl launch g$((i % 5)) {STILL} > /dev/null; nestctl kill g$((i % 5))"
    machine.sh(f"for i in $(seq 5); do {each}; done", timeout=_HOUR)
    before, cost = census(machine), price(machine)
    machine.sh(f"for i in $(seq {ROUNDS}); do {each}; done", timeout=_HOUR)
    assert census(machine) == before
    now = price(machine)
    progress(f"after 5 {cost}; after {ROUNDS} more {now}")
    assert hardly_more(now, cost)
    assert complaints(machine) == ""
