# SPDX-License-Identifier: LGPL-2.1-or-later
"""What nestctl prints, letter by letter."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nestd.ctl import guestrender, render
from nestd.ctl.style import PLAIN, Style
from nestd.ctl.table import columns, lines, visible

STATUS: dict[str, Any] = {
    "extension": "svm",
    "driver": "kvm_amd",
    "driver-state": "loaded",
    "nested": "on",
    "nested-at-boot": "on",
    "policy": "on",
    "reboot-required": False,
    "obstacle": "",
    "obstacle-meaning": "",
    "obstacle-remedy": "",
    "virtualization": "kvm",
    "version": "0.1.0",
    "parameters": {"nested": "1"},
    "kvm-api": 12,
    "guest-extension": True,
    "users": 2,
    "boot-source": "/etc/modprobe.d/zz-nestd.conf:3",
    "overridden": [],
}
GUEST: dict[str, Any] = {
    "name": "demo",
    "state": "running",
    "owner": 64055,
    "owner-name": "nestd",
    "unit": "nestd-guest-demo.service",
    "pid": 4711,
    "cpu": "host",
    "nesting": True,
    "missing-flags": [],
    "memory": 512 << 20,
    "vcpus": 2,
    "started": 1_700_000_000_000_000,
    "console": "/run/nestd/guests/demo/console",
    "exit-status": 0,
}
CHANGED: dict[str, Any] = {
    "changed": True,
    "nested": "off",
    "nested-at-boot": "off",
    "reboot-required": False,
    "steps": ["write /etc/modprobe.d/zz-nestd.conf", "unload kvm_amd"],
}


def test_where_nothing_fails_the_sum_says_so() -> None:
    checks = [{"id": "extension", "verdict": "pass", "message": "The CPU has svm.", "remedy": ""}]
    assert render.diagnosis(checks) == "ok   The CPU has svm. [extension]\n1 pass, 0 warn, 0 fail\n"
    assert render.holders([]) == "Nobody uses KVM.\n"


def test_status_where_all_is_well() -> None:
    assert render.status(STATUS) == (
        "         Nesting: on (running)\n"
        "    At next boot: on — decided by /etc/modprobe.d/zz-nestd.conf:3\n"
        "          Policy: on\n"
        "   CPU extension: svm\n"
        "          Driver: kvm_amd (module, loaded, 2 users)\n"
        "             KVM: API 12, guests are offered svm\n"
        "    This machine: runs in kvm\n"
    )


def test_status_where_the_next_boot_differs() -> None:
    values = STATUS | {
        "nested": "off",
        "nested-at-boot": "on",
        "reboot-required": True,
        "driver-state": "builtin",
        "guest-extension": False,
        "virtualization": "none",
        "overridden": ["/etc/modprobe.d/kvm.conf:7", "/usr/lib/modprobe.d/qemu.conf:1"],
    }
    assert render.status(values) == (
        "         Nesting: off\n"
        "    At next boot: on — decided by /etc/modprobe.d/zz-nestd.conf:3\n"
        "      Overridden: /etc/modprobe.d/kvm.conf:7\n"
        "                  /usr/lib/modprobe.d/qemu.conf:1\n"
        "          Reboot: required: nesting stays off in the running kernel, and is on after a reboot\n"
        "          Policy: on\n"
        "   CPU extension: svm\n"
        "          Driver: kvm_amd (built in)\n"
        "             KVM: API 12, guests are not offered the extension\n"
        "    This machine: runs on bare metal\n"
    )


def test_status_where_nothing_is_there() -> None:
    values = {
        "extension": "",
        "driver": "",
        "driver-state": "",
        "nested": "unsupported",
        "nested-at-boot": "unsupported",
        "policy": "unmanaged",
        "reboot-required": False,
        "obstacle": "firmware-disabled",
        "obstacle-meaning": "the firmware has it turned off",
        "obstacle-remedy": "turn on VT-x or AMD-V in its setup",
        "virtualization": "",
        "kvm-api": -1,
        "guest-extension": False,
        "users": 0,
        "boot-source": "",
        "overridden": [],
    }
    assert render.status(values) == (
        "         Nesting: unsupported\n"
        "    At next boot: unsupported\n"
        "          Policy: unmanaged\n"
        "   CPU extension: none\n"
        "          Driver: none\n"
        "             KVM: /dev/kvm cannot be used\n"
        "    This machine: unknown (systemd-detect-virt is not installed)\n"
        "      In the way: firmware-disabled — the firmware has it turned off\n"
        "                  To do: turn on VT-x or AMD-V in its setup\n"
    )


def test_an_older_or_newer_nestd_is_no_error() -> None:
    assert "Nesting: unknown\n" in render.status({})
    assert "weird — nestd does not say what it means\n" in render.status({"obstacle": "weird"})


def test_change_done() -> None:
    assert render.change(CHANGED, False) == (
        "  1. write /etc/modprobe.d/zz-nestd.conf\n"
        "  2. unload kvm_amd\n"
        "Nesting is off now; at the next boot: off.\n"
    )


def test_change_that_was_none() -> None:
    assert render.change(CHANGED | {"changed": False, "steps": []}, False) == (
        "Already so: nesting is off now; at the next boot: off.\n"
    )


def test_change_that_needs_a_reboot() -> None:
    assert render.change(CHANGED | {"nested": "on", "reboot-required": True, "steps": []}, False) == (
        "Nesting is on now; at the next boot: off.\n"
        "Reboot to settle it: nesting stays on in the running kernel, and is off after a reboot.\n"
    )


def test_dry_run() -> None:
    assert render.change(CHANGED | {"changed": False, "nested": "on"}, True) == (
        "It would take these steps:\n"
        "  1. write /etc/modprobe.d/zz-nestd.conf\n"
        "  2. unload kvm_amd\n"
        "Nothing was done. Nesting is on now; at the next boot: off.\n"
    )
    assert render.change(CHANGED | {"changed": False, "steps": []}, True) == (
        "There is nothing to do: it is already so.\n"
        "Nothing was done. Nesting is off now; at the next boot: off.\n"
    )


def test_a_table_of_wide_and_of_combining_letters() -> None:
    """A terminal gives the first two columns, the second none (UAX 11)."""
    rows = [("PID", "COMMAND", "UNIT"), ("1", "虚拟机", "a"), ("2", "cafe\u0301", "b"), ("3", "plain", "c")]
    assert columns(rows, PLAIN) == (
        "PID  COMMAND  UNIT\n"  #
        "1    虚拟机   a\n"
        "2    cafe\u0301     b\n"
        "3    plain    c\n"
    )


def test_table_of_guests() -> None:
    other = GUEST | {
        "name": "a-long-name",
        "state": "exited",
        "nesting": False,
        "pid": 0,
        "memory": 1536 << 20,
    }
    assert guestrender.guests([GUEST, other]) == (
        "NAME         STATE    OWNER  CPU   NESTING  MEMORY  PID\n"
        "demo         running  nestd  host  yes      512M    4711\n"
        "a-long-name  exited   nestd  host  no       1536M   -\n"
    )
    assert guestrender.guests([]) == "No guests.\n"


def test_one_guest() -> None:
    assert guestrender.guest(GUEST, "svm", ("2023-11-14 22:13:20 UTC", "unknown")) == (
        "            Name: demo\n"
        "           State: running\n"
        "           Owner: nestd (uid 64055)\n"
        "            Unit: nestd-guest-demo.service\n"
        "         Process: 4711\n"
        "             CPU: host\n"
        "         Nesting: granted: its virtual CPU has svm, so it can run guests of its own\n"
        "          Memory: 512M\n"
        "    Virtual CPUs: 2\n"
        "         Started: 2023-11-14 22:13:20 UTC\n"
        "         Console: /run/nestd/guests/demo/console\n"
    )


def test_a_guest_that_failed() -> None:
    values = GUEST | {"state": "failed", "pid": 0, "exit-status": 1, "result": "exit-code"}
    values |= {"last-words": ["qemu: I broke", "bye\x1b[2J"]}
    text = guestrender.guest(values, "svm", ("then", "later"))
    assert "           State: failed: QEMU ended with status 1\n" in text
    assert "         Process: none\n" in text
    assert text.endswith(
        "         Started: then\n"
        "           Ended: later\n"
        "      Last words: qemu: I broke\n"
        "                  bye\\x1b[2J\n"
    )


@pytest.mark.parametrize(
    ("state", "more", "told"),
    [
        ("running", {}, "running"),
        ("stopping", {"stopping": "power-button"}, "stopping: its power button was pressed"),
        ("stopping", {"stopping": "unit"}, "stopping: systemd stops its unit"),
        ("exited", {"result": "success", "exit-status": 0}, "exited: QEMU ended with status 0"),
        ("exited", {"result": "success", "exit-status": 15}, "exited: QEMU was ended by signal 15"),
        ("exited", {"result": ""}, "exited: nobody saw how"),
        ("failed", {"result": "signal", "exit-status": 9}, "failed: QEMU was ended by signal 9"),
        ("failed", {"result": "oom-kill"}, "failed: it used more memory than its unit may and was killed"),
        ("failed", {"result": "watchdog"}, "failed: watchdog"),
    ],
)
def test_the_state_with_what_there_is_to_say(state: str, more: dict[str, Any], told: str) -> None:
    text = guestrender.guest(GUEST | {"state": state} | more, "svm", ("", ""))
    assert f"           State: {told}\n" in text


def test_the_verdict_on_a_guest_that_cannot_nest() -> None:
    values = GUEST | {"nesting": False, "missing-flags": ["svm", "npt"]}
    text = guestrender.guest(values, "svm", ("", ""))
    assert (
        "         Nesting: not granted: its virtual CPU lacks svm, so KVM does not work in it\n"
        "   Missing flags: 2 CPU flags did not reach the guest: svm npt\n"
        "                  (svm: see `nestctl diagnose`)\n"
    ) in text
    text = guestrender.guest(values | {"cpu": "EPYC,-svm"}, "svm", ("", ""))
    assert "                  (svm: its CPU takes it away)\n" in text


def test_flags_that_did_not_reach_the_guest() -> None:
    assert "Missing flags" not in guestrender.guest(GUEST, "svm", ("", ""))
    text = guestrender.guest(GUEST | {"missing-flags": ["in\x1b[2J"]}, "svm", ("", ""))
    assert "   Missing flags: 1 CPU flag did not reach the guest: in\\x1b[2J\n          Memory: " in text
    many = [f"flag-{number}" for number in range(12)]
    text = guestrender.guest(GUEST | {"missing-flags": many}, "svm", ("", ""))
    assert (
        "   Missing flags: 12 CPU flags did not reach the guest: flag-0 flag-1 flag-2\n"
        "                  flag-3 flag-4 flag-5 flag-6 flag-7 flag-8 flag-9 flag-10\n"
        "                  flag-11\n          Memory: "
    ) in text


def test_where_it_is_and_what_it_has() -> None:
    values = GUEST | {"lab": "town", "vnc": "/run/nestd/guests/demo/vnc"}
    text = guestrender.guest(values, "svm", ("", ""))
    assert "             Lab: town\n" in text
    assert "    Screen (VNC): /run/nestd/guests/demo/vnc\n" in text


def test_verdict_of_a_launch() -> None:
    assert guestrender.launched(GUEST, "svm") == (
        "demo runs as nestd-guest-demo.service (uid 64055), CPU host, svm: granted\n"
    )
    assert guestrender.launched(GUEST | {"nesting": False, "missing-flags": ["svm", "npt"]}, "svm") == (
        "demo runs as nestd-guest-demo.service (uid 64055), CPU host, svm: not granted; "
        "2 CPU flags did not reach it (`nestctl show demo`)\n"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [(512 << 20, "512M"), (2 << 30, "2G"), (1 << 40, "1T"), (4096, "4K"), (1000, "1000"), (0, "unknown")],
)
def test_memory(value: int, text: str) -> None:
    assert guestrender.memory(value) == text


def test_hostile_text_is_made_visible() -> None:
    assert visible("a\x1b[2J\n\t\x9b\u202e\udcff\0é—") == r"a\x1b[2J\n\t\x9b\u202e\udcff\x00é—"
    assert lines("qemu said:\r\n\x1b]0;x\x07bad\n") == "qemu said:\\r\n    \\x1b]0;x\\x07bad"


hostile = st.dictionaries(
    st.sampled_from(sorted({*STATUS, *GUEST, *CHANGED})),
    st.one_of(st.text(), st.integers(), st.booleans(), st.lists(st.text()), st.none()),
)


@settings(deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine
@given(hostile)
def test_nothing_raw_reaches_the_terminal(values: dict[str, Any]) -> None:
    printed = (
        render.status(values)
        + render.change(values, False)
        + render.change(values, True)
        + guestrender.guests([values])
        + guestrender.guest(values, str(values.get("extension")), ("unknown", "unknown"))
        + guestrender.launched(values, str(values.get("extension")))
    )
    assert all(c.isprintable() or c == "\n" for c in printed)


def test_colours_change_nothing_but_the_colours() -> None:
    import re

    painted = render.status(STATUS, Style(True))
    assert "\x1b[32mon\x1b[0m" in painted
    assert re.sub(r"\x1b\[\d+m", "", painted) == render.status(STATUS)
    table = guestrender.guests([GUEST], Style(True))
    assert re.sub(r"\x1b\[\d+m", "", table) == guestrender.guests([GUEST])


def test_what_waits() -> None:
    waiting = {**CHANGED, "changed": False, "pending": True, "nested": "on", "nested-at-boot": "on"}
    told = render.change(waiting, dry_run=False)
    assert told.startswith("KVM is in use: the change waits until nobody uses it, then takes these steps:\n")
    assert "  1. " in told
    assert "`nestctl cancel` takes the change back." in told
    told = render.change(waiting, dry_run=True)
    assert "the change would wait" in told and "cancel" not in told


def test_status_of_what_waits_and_of_a_drift() -> None:
    more = {"pending-change": "off", "pending-scope": "both", "pending-user": 1000, "drift": "some\x1bbody"}
    text = render.status({**STATUS, **more})
    assert (
        "         Waiting: nesting will be off (now and at the next boot) as soon as nobody uses KVM; "
        "user 1000 has asked for it\n"
    ) in text
    assert "           Drift: this is not what nestd was told: some\\x1bbody\n" in text
