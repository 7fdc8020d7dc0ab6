# SPDX-License-Identifier: LGPL-2.1-or-later
"""nestd killed, and the machine's power cut, in the middle of a change of the real kernel's driver."""

from __future__ import annotations

import base64
import time
from pathlib import Path

import pytest

from nestd.log import HEALED
from tests.support import faults
from tests.support.faults import HANG, KILL_AFTER, KILL_BEFORE
from tests.vm.machine import Machine
from tests.vm.test_spine import DROPIN, MANAGER, call, change, prop

RECORD = "/var/lib/nestd/change"
PARAMETERS = "/sys/module/kvm_amd/parameters"
HALT_POLL = "/sys/module/kvm/parameters/halt_poll_ns"
LIMIT = 120.0  # seconds, for what takes two or three
METHODS = {"off": "Disable", "on": "Enable"}
OTHER = {"off": "on", "on": "off"}

# In the tool's place: at the one moment that it was told, it does what it was told, once.
TOOL = """#!/bin/sh
once() {
    if [ -e /run/nestd/fault ]; then rm /run/nestd/fault; : > /run/nestd/reached; ACT; fi
}
BEFORE
/usr/local/lib/real/TOOL "$@"
code=$?
AFTER
exit $code
"""
ACTS = {"kill": "kill -9 $PPID", "hang": "sleep 1000"}

# Off and on differ in nothing but the values: by day one of them does.
WISHES = ["off", pytest.param("on", marks=pytest.mark.nightly)]

# The numbers of calls that change a file system (tests/support/faults.c). A write of the journal takes
# nine, of which three would make its folders and the eighth is the rename; the drop-in seven, of which the
# sixth is the rename. Of six entries of the journal one comes before the drop-in; at last it is unlinked.
JOURNAL, WRITTEN, ENDED = 7, 14, 61


def fault_in_tool(machine: Machine, tool: str, when: str, act: str) -> None:
    """Have the next call of the tool meet it."""
    script = TOOL.replace("TOOL", tool).replace("ACT", ACTS[act])
    script = script.replace(when.upper(), "once").replace("BEFORE", "").replace("AFTER", "")
    machine.sh(f"mkdir /usr/local/lib/real; ln -s /bin/kmod /usr/local/lib/real/{tool}; rm /usr/sbin/{tool}")
    machine.write(f"/usr/sbin/{tool}", script, mode=0o755)
    machine.sh("touch /run/nestd/fault; sync")


def fault_at_write(machine: Machine, folder: Path, number: int, what: int) -> None:
    """Have nestd meet it at the call of that number from now on."""
    library = faults.build(folder)
    machine.push(library, to="/usr/local/lib/nestd-test")
    machine.write(
        "/run/systemd/system/nestd.service.d/faults.conf",
        f"[Service]\nEnvironment=LD_PRELOAD=/usr/local/lib/nestd-test/{library.name}\n"
        "Environment=NESTD_FAULTS=/run/nestd/faults PYTHONDONTWRITEBYTECODE=1\n",
    )
    machine.write("/run/nestd/faults", faults.control(-1, 0))
    machine.sh("systemctl daemon-reload; systemctl restart nestd")
    set_fault(machine, number, what)


def set_fault(machine: Machine, number: int, what: int) -> None:
    """Have nestd meet it at the call of that number, counted from now on, and not at another."""
    # In place: the file is mapped.
    control = base64.b64encode(faults.control(number, what)).decode()
    machine.sh(f"echo {control} | base64 -d | dd of=/run/nestd/faults conv=notrunc status=none; sync")


def calls_made(machine: Machine) -> int:
    """How many calls that change a file system there were since."""
    return int.from_bytes(machine.read("/run/nestd/faults")[12:16], "little")


def wait_for(machine: Machine, script: str, limit: float = LIMIT) -> None:
    """Wait until the text of bash ends with 0; at most `limit` seconds."""
    deadline = time.monotonic() + limit
    while machine.sh(script, check=False).code != 0:
        assert time.monotonic() < deadline, script
        time.sleep(0.2)


def prepare(machine: Machine, nested: str) -> None:
    """The state before, with a parameter of the driver and one of kvm given by hand."""
    machine.sh("modprobe -r kvm_amd; modprobe kvm_amd npt=0 nested=1")
    machine.write(HALT_POLL, "12345")
    if nested == "on":
        change(machine, "Disable")


def told(machine: Machine) -> tuple[str, str, str]:
    """What the drop-in says, the driver's switch, and another parameter of it."""
    option = machine.sh(f"tail -n1 {DROPIN} 2>/dev/null || true").stdout.strip()
    switch, npt = (machine.out("cat", f"{PARAMETERS}/{name}") for name in ("nested", "npt"))
    return option, switch, npt


def assert_new(machine: Machine, nested: str, npt: str) -> None:
    """The new state in both halves, as nestd and the kernel have it; nothing is left, and all can be done."""
    assert (prop(machine, "Nested"), prop(machine, "NestedAtBoot")) == (nested, nested)
    value = "1" if nested == "on" else "0"
    assert told(machine) == (f"options kvm_amd nested={value}", value, npt)
    assert machine.sh(f"test -e {RECORD}", check=False).code != 0
    assert machine.out("systemctl", "is-active", "nestd") == "active"
    assert change(machine, METHODS[OTHER[nested]])["nested"] == OTHER[nested]
    assert told(machine)[2] == npt
    if npt == "N":
        assert machine.out("cat", HALT_POLL) == "12345"


def assert_told_in_the_journal(machine: Machine) -> None:
    lines = machine.out("journalctl", "-b", "--no-pager", "-o", "cat", f"MESSAGE_ID={HEALED}")
    assert "was interrupted" in lines


def test_parameters_that_were_given_by_hand_are_kept(machine: Machine) -> None:
    prepare(machine, "off")
    change(machine, "Disable")
    assert told(machine) == ("options kvm_amd nested=0", "0", "N")
    change(machine, "Enable")
    assert told(machine) == ("options kvm_amd nested=1", "1", "N")
    assert machine.out("cat", HALT_POLL) == "12345"


@pytest.mark.parametrize("nested", WISHES)
@pytest.mark.parametrize("tool", ["rmmod", "modprobe"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_around_a_tool(machine: Machine, nested: str, tool: str, when: str) -> None:
    prepare(machine, nested)
    fault_in_tool(machine, tool, when, "kill")
    refused = call(machine, METHODS[nested], "a{sv}", "0", check=False)
    assert refused.code != 0 and machine.sh("test -e /run/nestd/reached").code == 0
    assert_new(machine, nested, "N")
    assert_told_in_the_journal(machine)
    assert machine.out("systemctl", "show", "-P", "NRestarts", "nestd") == "1"


@pytest.mark.parametrize("nested", WISHES)
@pytest.mark.parametrize(
    ("number", "what"),
    [(JOURNAL, KILL_AFTER), (WRITTEN, KILL_BEFORE), (WRITTEN, KILL_AFTER), (ENDED, KILL_BEFORE)],
    ids=["journalled", "before-the-drop-in", "after-the-drop-in", "at-the-end"],
)
def test_killed_at_a_write(machine: Machine, tmp_path: Path, nested: str, number: int, what: int) -> None:
    prepare(machine, nested)
    fault_at_write(machine, tmp_path, number, what)
    assert call(machine, METHODS[nested], "a{sv}", "0", check=False).code != 0
    assert calls_made(machine) > number
    assert_new(machine, nested, "N")
    assert_told_in_the_journal(machine)


@pytest.mark.parametrize(
    ("nested", "tool", "when"),
    [
        pytest.param("off", "rmmod", "before", marks=pytest.mark.nightly),
        ("on", "modprobe", "before"),
        pytest.param("off", "modprobe", "after", marks=pytest.mark.nightly),
    ],
)
def test_the_power_is_cut_around_a_tool(machine: Machine, nested: str, tool: str, when: str) -> None:
    """The boot reads the new drop-in: it is finished."""
    prepare(machine, nested)
    fault_in_tool(machine, tool, when, "hang")
    machine.start(["busctl", "call", *MANAGER, METHODS[nested], "a{sv}", "0"])
    wait_for(machine, "test -e /run/nestd/reached")
    machine.power_cut()
    assert_new(machine, nested, "Y")
    assert_told_in_the_journal(machine)


@pytest.mark.parametrize(("number", "done"), [(WRITTEN, False), (WRITTEN + 2, True)], ids=["before", "after"])
def test_the_power_is_cut_at_the_drop_in(
    machine: Machine, tmp_path: Path, number: int, *, done: bool
) -> None:
    prepare(machine, "off")
    fault_at_write(machine, tmp_path, number, HANG)
    machine.start(["busctl", "call", *MANAGER, "Disable", "a{sv}", "0"])
    deadline = time.monotonic() + LIMIT
    while calls_made(machine) <= number:
        assert time.monotonic() < deadline
    machine.power_cut()
    if done:
        assert_new(machine, "off", "Y")
    else:
        assert (prop(machine, "Nested"), prop(machine, "NestedAtBoot")) == ("on", "on")
        assert told(machine) == ("", "1", "Y")
        assert machine.sh(f"test -e {RECORD}", check=False).code != 0
    assert_told_in_the_journal(machine)
