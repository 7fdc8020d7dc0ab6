# SPDX-License-Identifier: LGPL-2.1-or-later
"""What goes on while nestd is away: a stop that it had begun, a good end that only the journal saw."""

from __future__ import annotations

from tests.vm.machine import Machine
from tests.vm.test_guests import IDLE, complaints, show
from tests.vm.test_pending import wait_until

KILLED = "systemctl kill --signal=KILL nestd.service; sleep 1; systemctl start nestd.service"


def test_a_stop_outlives_the_nestd_that_began_it(machine: Machine) -> None:
    """Firmware alone does not hear the power button, so the unit is stopped at the end of the stop's time."""
    machine.sh(f"nestctl launch demo {IDLE}", timeout=240)
    machine.sh("nestctl stop demo --timeout 30 < /dev/null > /tmp/stop.out 2>&1 &")
    wait_until(machine, "$(nestctl --json show demo | grep -c power-button) == 1")
    before = show(machine, "demo")
    machine.sh(KILLED)
    assert show(machine, "demo") == before
    # nestd's own Restart= or the line above, whichever came first, has taken it up.
    wait_until(machine, "$(nestctl list | grep -c demo) == 0")
    ended = show(machine, "demo")
    assert (ended["state"], ended["result"], ended["stopping"]) == ("exited", "success", "")
    assert ended["ended"] >= before["stop-deadline"]
    assert "terminating on signal 15" in ended["last-words"][-1]
    assert complaints(machine) == ""
    machine.sh(f"nestctl launch demo {IDLE}; nestctl kill demo", timeout=240)


def test_a_good_end_while_nestd_is_away_is_told_all_the_same(machine: Machine) -> None:
    machine.sh(f"nestctl launch demo {IDLE}", timeout=240)
    before = show(machine, "demo")
    machine.sh(
        f"systemctl stop nestd.service; kill -TERM {before['pid']}; "
        f"while systemctl is-active --quiet {before['unit']}; do sleep 0.1; done; sleep 2"
    )
    # systemd keeps nothing of a unit that ended well.
    assert machine.out("systemctl", "show", "--value", "-p", "LoadState", before["unit"]) == "not-found"
    started = int(machine.out("date", "+%s%6N"))
    machine.sh("systemctl start nestd.service")
    wait_until(machine, "$(nestctl show demo | grep -c 'Last words') == 1")
    ended = show(machine, "demo")
    assert (ended["state"], ended["result"], ended["exit-status"]) == ("exited", "success", 0)
    assert "terminating on signal 15" in ended["last-words"][-1]
    assert before["started"] < ended["ended"] < started
    assert "State: exited: QEMU ended with status 0" in machine.out("nestctl", "show", "demo")
    # The next one knows it from its record.
    machine.sh("systemctl restart nestd.service")
    assert show(machine, "demo") == ended


def test_what_was_handed_over_and_an_unreadable_record_do_not_stay(machine: Machine) -> None:
    machine.sh(
        "systemctl stop nestd.service; install -d -m 0700 /run/nestd/handover /run/nestd/registry; "
        "echo secret > /run/nestd/handover/gone.user-data; echo '{' > /run/nestd/registry/gone.json; "
        "systemctl start nestd.service"
    )
    assert machine.out("ls", "-A", "/run/nestd/handover", "/run/nestd/registry").split() == [
        "/run/nestd/handover:",
        "/run/nestd/registry:",
    ]
    assert complaints(machine).count("gone") == 1
