# SPDX-License-Identifier: LGPL-2.1-or-later
"""Guests' lives with the real systemd, systemd-machined and QEMU: listed, ended, stuck, found again."""

from __future__ import annotations

import json
from typing import Any

from tests.vm.machine import Machine
from tests.vm.test_pending import wait_until
from tests.vm.test_spine import GUEST

# A guest with nothing to boot: its firmware says so and waits.
IDLE = "--memory 16M"


def show(machine: Machine, name: str) -> dict[str, Any]:
    """All that is known of a guest."""
    return dict(json.loads(machine.out("nestctl", "--json", "show", name)))


def machines(machine: Machine) -> list[list[str]]:
    """What machinectl lists: name, class, service."""
    lines = machine.sh("machinectl list --no-legend --no-pager").stdout.splitlines()
    return [line.split()[:3] for line in lines]


def complaints(machine: Machine) -> str:
    """What nestd has warned of; not what systemd says of it."""
    own = "_SYSTEMD_UNIT=nestd.service"
    return machine.sh(f"journalctl -q -b {own} -p warning -o cat --no-pager || true").stdout


def test_machined_lists_a_guest_once_and_as_long_as_it_runs(machine: Machine) -> None:
    machine.sh(f"nestctl launch demo {IDLE}", timeout=240)
    machine.sh(f"nestctl launch a_b {IDLE}", timeout=240)
    listed = [["nestd-a-5fb", "vm", "nestd"], ["nestd-demo", "vm", "nestd"]]
    wait_until(machine, "$(machinectl list --no-legend | grep -c nestd-) == 2")
    assert sorted(machines(machine)) == listed
    leader, unit = (
        machine.out("machinectl", "show", "--value", "-p", name, "nestd-demo") for name in ("Leader", "Unit")
    )
    shown = show(machine, "demo")
    assert (leader, unit) == (str(shown["pid"]), shown["unit"])
    for how in ("restart nestd.service", "kill --signal=KILL nestd.service; sleep 1; systemctl start nestd"):
        machine.sh(f"systemctl {how}")
        assert show(machine, "demo") == shown
        assert sorted(machines(machine)) == listed
    # A machined that has forgotten it (or was not there before) is told by the next nestd.
    machine.sh("systemctl stop systemd-machined; rm -rf /run/systemd/machines/*; systemctl restart nestd")
    wait_until(machine, "$(machinectl list --no-legend | grep -c nestd-) == 2")
    assert complaints(machine) == ""
    machine.sh("nestctl kill demo")
    wait_until(machine, "$(machinectl list --no-legend | grep -c nestd-demo) == 0")
    # What machinectl does to it is an end as any other.
    machine.sh("machinectl terminate nestd-a-5fb")
    wait_until(machine, "$(nestctl list | grep -c a_b) == 0")
    wait_until(machine, "$(machinectl list --no-legend | wc -l) == 0")
    assert show(machine, "a_b")["state"] in ("exited", "failed")
    assert complaints(machine) == ""


def test_without_machined_there_is_nothing_to_say(machine: Machine) -> None:
    machine.sh("systemctl mask --now systemd-machined.service")
    machine.sh(f"nestctl launch demo {IDLE}", timeout=240)
    machine.sh("nestctl kill demo")
    assert complaints(machine) == ""


def test_what_became_of_a_guest_is_told_for_a_while(machine: Machine) -> None:
    machine.sh(f"nestctl launch demo {IDLE}", timeout=240)
    machine.sh(f"kill -TERM {show(machine, 'demo')['pid']}")
    wait_until(machine, "$(nestctl list --all | grep -c exited) == 1")
    wait_until(machine, "$(nestctl show demo | grep -c 'Last words') == 1")
    ended = show(machine, "demo")
    assert (ended["state"], ended["result"], ended["exit-status"], ended["pid"]) == (
        "exited",
        "success",
        0,
        0,
    )
    assert "terminating on signal 15" in ended["last-words"][-1]
    assert ended["started"] < ended["ended"]
    assert machine.out("nestctl", "--json", "list") == "[]"
    assert "State: exited: QEMU ended with status 0" in machine.out("nestctl", "show", "demo")
    refused = machine.run(["nestctl", "stop", "demo"], check=False)
    assert refused.code == 1 and "has ended" in refused.stderr
    # It is still known to the next nestd, also how one ended that nobody was there to see.
    machine.sh(f"nestctl launch other {IDLE}", timeout=240)
    pid = show(machine, "other")["pid"]
    machine.sh(f"systemctl stop nestd.service; kill -KILL {pid}; sleep 1; systemctl start nestd.service")
    assert show(machine, "demo") == ended
    other = show(machine, "other")
    assert (other["state"], other["result"], other["exit-status"]) == ("failed", "signal", 9)
    assert machine.sh("systemctl --failed --no-legend").stdout.strip() == ""
    # The name is free.
    machine.sh(f"nestctl launch other {IDLE}; nestctl kill other", timeout=240)


def test_a_guest_is_found_again_with_all_its_properties(machine: Machine) -> None:
    """From its record, and without it from its unit and its QEMU."""
    machine.sh(f"nestctl launch demo --cpu qemu64 --cpu-feature=-avx --vcpus 2 {IDLE}", timeout=240)
    before = show(machine, "demo")
    assert before["nesting"] is True
    machine.sh("systemctl restart nestd.service")
    assert show(machine, "demo") == before
    machine.sh("systemctl stop nestd; rm /run/nestd/registry/demo.json; systemctl start nestd")
    assert show(machine, "demo") == before


def test_a_stuck_guest_delays_no_other_nor_the_next_nestd(machine: Machine) -> None:
    machine.sh(f"nestctl launch stuck {IDLE}", timeout=240)
    machine.sh(f"kill -STOP {show(machine, 'stuck')['pid']}")
    with machine.background(["sh", "-c", "exec nestctl stop stuck --timeout 3600 2>&1"]) as stopping:
        wait_until(machine, "$(nestctl --json show stuck | grep -c stopping) -ge 1")
        machine.sh(f"nestctl launch other {IDLE}; nestctl show other; nestctl kill other", timeout=240)
        # systemd's SIGKILL is what ends it: 10 seconds after SIGTERM.
        wait_until(machine, "$(nestctl list | grep -c stuck) == 0")
        assert stopping.wait(60).code == 0
    machine.sh(f"nestctl launch stuck {IDLE}; nestctl launch other {IDLE}", timeout=240)
    pid = show(machine, "stuck")["pid"]
    machine.sh(
        f"kill -STOP {pid}; systemctl stop nestd; rm /run/nestd/registry/stuck.json; systemctl start nestd"
    )
    assert show(machine, "other")["state"] == "running"
    wait_until(machine, "$(nestctl list | grep -c stuck) == 1")
    assert show(machine, "stuck")["pid"] == pid
    machine.sh("nestctl kill stuck; nestctl kill other")


def test_a_guest_that_does_not_heed_the_power_button_is_stopped(machine: Machine) -> None:
    machine.sh(f"nestctl launch demo {IDLE}", timeout=240)
    machine.sh("nestctl stop demo --timeout 5", timeout=120)
    shown = show(machine, "demo")
    assert (shown["state"], shown["result"]) == ("exited", "success"), shown
    assert machine.sh("systemctl is-active nestd-guest-demo.service", check=False).code != 0


def test_the_power_button_is_pressed_and_its_time_is_shown(machine: Machine) -> None:
    machine.sh(f"nestctl launch demo --memory 192M {GUEST}", timeout=240)
    machine.sh("timeout 120 sh -c 'nestctl console demo < /dev/null | grep -m1 -a guest-ready'", timeout=150)
    shown = machine.sh("script -qec 'nestctl stop demo --timeout 100' /dev/null", timeout=200).stdout
    assert "Powering off demo: its unit is stopped in " in shown, shown
    assert show(machine, "demo")["result"] == "success"
