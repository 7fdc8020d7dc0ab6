# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is said where a guest could not be had. QEMU's words are QEMU's own: tests/vm has it say them."""

from __future__ import annotations

from typing import Any

import pytest

from nestd.errors import CallFailed
from nestd.guestmodel import GuestSpec, Network
from nestd.guests import refusals

DENIED = "-blockdev {…}: Could not open '/root/d': Permission denied"
GONE = "-blockdev {…}: Could not open '/run/d': No such file or directory"
LATE = "systemd did not get to it in time"
SLOW = "took too long, and was ended: a file system may hang"


@pytest.mark.parametrize(
    ("result", "known", "said", "told"),
    [
        ("failed", {"Result": "exit-code", "ExecMainStatus": 1}, "qemu-img: no", "qemu-img: no"),
        ("failed", {"Result": "signal", "ExecMainStatus": 9}, "", "it was ended by signal 9"),
        (
            "failed",
            {"Result": "exit-code", "ActiveState": "failed"},
            "",
            "what prepares its files failed and",
        ),
        ("canceled", {"Result": "success"}, "bsdtar: killed", "it was stopped before QEMU ran"),
        ("dependency", {}, "", "systemd could not start machine.slice"),
        ("timeout", {}, "", LATE),
        ("timeout", {"ActiveState": "inactive", "Result": "success"}, "", LATE),
        ("timeout", {"ActiveState": "activating"}, "", f"what prepares its files {SLOW}"),
        ("failed", {"ActiveState": "failed", "Result": "timeout"}, "", f"what prepares its files {SLOW}"),
        (
            "failed",
            {"ActiveState": "failed", "Result": "timeout"},
            "bsdtar: slow",
            f"bsdtar: slow\nwhat prepares its files {SLOW}",
        ),
        (
            "timeout",
            {"ActiveState": "activating", "ExecMainStartTimestamp": 7},
            "",
            f"QEMU's own start {SLOW}",
        ),
    ],
)
def test_why_a_unit_did_not_start(result: str, known: dict[str, Any], said: str, told: str) -> None:
    assert refusals.not_begun(result, known, said).startswith(told)


def test_who_does_not_answer_has_refused_nothing() -> None:
    assert refusals.refused("x.service", CallFailed("a.B", "no")) == "systemd refused to start x.service: no"
    late = CallFailed("org.freedesktop.DBus.Error.NoReply", "no answer")
    assert refusals.refused("x.service", late).startswith(f"x.service did not start (timeout): {LATE}")


@pytest.mark.parametrize(
    ("network", "why", "remedy"),
    [
        ("none", DENIED, "QEMU runs as the user guestling, who has to be let read "),
        ("none", GONE, ""),
        ("user", GONE, "If it is there: a guest with the network user sees "),
        ("none", "Could not access KVM kernel module: Permission denied", "The group kvm has to be let "),
        ("none", "it broke", ""),
    ],
)
def test_what_helps(network: str, why: str, remedy: str) -> None:
    told = refusals.remedied(GuestSpec("demo", "guestling", network=Network(network)), why)
    words, _, rest = told.partition("\n")
    assert words == why
    assert rest.startswith(remedy) and bool(rest) is bool(remedy)
