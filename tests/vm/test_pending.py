# SPDX-License-Identifier: LGPL-2.1-or-later
"""What waits for the driver to become idle, and what is kept: with the real kernel and its events."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.vm.machine import Machine
from tests.vm.test_spine import DROPIN, MANAGER, PARAMETER, assert_truth, call, prop

# A guest that is never started: its QEMU has a virtual machine and does nothing with it.
QEMU = [
    *("qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-machine", "q35", "-m", "64M", "-S"),
    *("-nodefaults", "-display", "none", "-monitor", "none"),
]
# Opens the device that it is told, makes a virtual machine with it (KVM_CREATE_VM), or does not, and lets go
# step by step, a line of input each.
HOLD = """
import fcntl, os, sys
held = [os.open(sys.argv[1], os.O_RDWR)]
if sys.argv[2] == "vm":
    held.append(fcntl.ioctl(held[0], 0xAE01, 0))
print("holds", flush=True)
for descriptor in held:
    sys.stdin.readline()
    os.close(descriptor)
    print("closed", flush=True)
sys.stdin.readline()
"""
OWN_NODE = """mount -t tmpfs none /mnt; mkdir /mnt/dev; mknod /mnt/dev/kvm c 10 232
exec python3 -c "$0" /mnt/dev/kvm fd"""


def wait_until(machine: Machine, test: str) -> None:
    """Wait until a test of bash's is true, a minute at most."""
    machine.sh(f"for i in $(seq 600); do if [[ {test} ]]; then exit; fi; sleep 0.1; done; exit 1")


def is_off(machine: Machine) -> None:
    """Wait until the waiting change is done."""
    waiting = f"$(busctl get-property {' '.join(MANAGER)} PendingChange)"
    wait_until(machine, f"""$(cat {PARAMETER} 2>&1) == 0 && "{waiting}" == 's ""'""")
    assert_truth(machine, "off", "off")


def waits(machine: Machine) -> None:
    """Ask for nesting off, which has to wait."""
    assert machine.run(["nestctl", "disable"], check=False).code == 5
    machine.sh("nestctl disable --when-idle")
    assert prop(machine, "PendingChange") == "off"
    assert "Waiting: nesting will be off" in machine.out("nestctl", "status")
    assert machine.sh(f"test -e {DROPIN}", check=False).code == 1
    assert machine.out("cat", PARAMETER) in ("1", "Y")


def journal(machine: Machine, message_id: str) -> list[dict[str, Any]]:
    """nestd's entries of that id."""
    text = machine.out(
        "journalctl", "-o", "json", "--no-pager", "-u", "nestd.service", f"MESSAGE_ID={message_id}"
    )
    return [json.loads(line) for line in text.splitlines()]


def test_qemu_ends_after_nestd_was_restarted_and_killed(machine: Machine) -> None:
    with machine.background(QEMU):
        wait_until(machine, "$(cat /sys/module/kvm_amd/refcnt) -gt 0")
        waits(machine)
        machine.sh("systemctl restart nestd.service")
        assert prop(machine, "PendingChange") == "off"
        killed = machine.out("systemctl", "show", "-P", "MainPID", "nestd.service")
        machine.sh("systemctl kill --signal=KILL nestd.service")
        wait_until(machine, f"$(systemctl show -P MainPID nestd.service) != {killed}")
        wait_until(machine, "$(systemctl is-active nestd.service) == active")
        assert prop(machine, "PendingChange") == "off"
        # It waits in its sleep.
        pid = machine.out("systemctl", "show", "-P", "MainPID", "nestd.service")
        machine.sh("sleep 3")
        switches = f"awk '/ctxt_switches/ {{n += $2}} END {{print n}}' /proc/{pid}/status"
        before = machine.sh(f"{switches}; sleep 5; {switches}").stdout.split()
        assert before[0] == before[1]
        assert machine.out("cat", PARAMETER) in ("1", "Y")
    is_off(machine)
    [done] = journal(machine, "7c0a9b1a59c24d0f8a31f7d2f7b1f4d6")
    assert done["NESTD_UID"] == "0"


@pytest.mark.parametrize("how", ["vm", "own node"])
def test_a_descriptor_is_closed(machine: Machine, how: str) -> None:
    """A virtual machine without /dev/kvm; and another node of the device in another mount namespace."""
    hold = {
        "vm": ["python3", "-c", HOLD, "/dev/kvm", "vm"],
        "own node": ["unshare", "-m", "sh", "-c", OWN_NODE, HOLD],
    }
    with machine.background(hold[how]) as holder:
        holder.wait_for("holds", 60)
        waits(machine)
        if how == "vm":
            holder.write("\n")
            holder.wait_for("closed", 30)
            machine.sh("sleep 2")
            assert machine.out("cat", PARAMETER) in ("1", "Y")
            # Taken back, it is not done; asked for anew, it is.
            machine.sh("nestctl cancel")
            assert prop(machine, "PendingChange") == ""
            waits(machine)
        else:
            machine.sh("sleep 2")
        holder.write("\n")
        is_off(machine)


def test_a_power_cut_while_it_waits(machine: Machine) -> None:
    machine.start(QEMU)
    wait_until(machine, "$(cat /sys/module/kvm_amd/refcnt) -gt 0")
    waits(machine)
    machine.power_cut()
    machine.sh("systemctl start nestd.service")
    is_off(machine)


def test_drift_is_told_and_put_back_and_nobody_is_fought(machine: Machine) -> None:
    machine.sh("nestctl disable")
    by_hand = "modprobe -r kvm_amd; modprobe kvm_amd nested=1"
    # that it listens is said on its stderr
    with machine.background(["sh", "-c", "exec busctl monitor org.nestd1 2>&1"]) as listener:
        listener.wait_for("Monitoring", 30)
        machine.sh(by_hand)
        listener.wait_for("Member=Drift", 30)
        listener.wait_for("the driver was loaded anew with other arguments", 30)
    status = json.loads(machine.out("nestctl", "--json", "status"))
    assert (status["nested"], status["drift"]) == ("on", "the driver was loaded anew with other arguments")

    machine.write("/etc/nestd/nestd.conf", "[Nesting]\nEnforce=when-idle\n")
    machine.sh("systemctl restart nestd.service")
    is_off(machine)
    fight = f"while :; do if [[ $(cat {PARAMETER} 2>/dev/null) == 0 ]]; then {by_hand}; fi; sleep 0.3; done"
    with machine.background(["bash", "-c", fight]):
        wait_until(machine, "-n $(journalctl -q -u nestd.service | grep -o 'nestd gives up')")
    checks = {row[0]: row[1] for row in json.loads(call(machine, "Diagnose").stdout)["data"][0]}
    assert checks["drift"] == "fail"
    machine.sh("sleep 2")
    assert prop(machine, "Nested") == "on"
    machine.sh("nestctl disable")
    assert_truth(machine, "off", "off")
