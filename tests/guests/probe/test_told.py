# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import pytest

from nestd.errors import Malformed
from nestd.guests.probe import told
from nestd.guests.probe.exits import line
from nestd.guests.probe.told import Exits, Failure, Spread

SPREAD = {"median": 2.5, "low": 2.0, "high": 3.0, "rounds": 7, "exits": 8}


def test_whole_lines_are_read_and_the_rest_is_passed_over() -> None:
    text = (
        "[    0.1] nestd-probe of something else\r\n"
        + line({"created": True}).replace("\n", "\r\n")
        + 'nestd-probe {"ran": tr[    1.2] BUG: in the middle\r\n'
        + "[    1.3] a word of the kernel before "
        + line({"ran": True})
        + "nestd-probe [1] .\nnestd-probe {nothing} .\n"
    )
    assert told.merged(text) == {"created": True, "ran": True}


@pytest.mark.parametrize("hostile", ['{"a": ' + "[" * 9000 + "}", "{" * 15000 + "}", "{" + "x" * 20000 + "}"])
def test_what_a_guest_says_costs_nothing_but_itself(hostile: str) -> None:
    assert told.merged(f"nestd-probe {hostile} .\n" + line({"end": True})) == {"end": True}


def test_a_line_that_was_cut_short_by_another_does_not_take_that_with_it() -> None:
    """Nor is it looked at further than that: a guest that only begins lines costs one pass over them."""
    assert told.merged('nestd-probe {"loaded": tr' + line({"end": True})) == {"end": True}


def test_the_two_numbers() -> None:
    spread = Spread(2.5, 2.0, 3.0, 7)
    assert told.exits(told.merged(line({"kernel": SPREAD}) + line({"user": SPREAD}))) == Exits(spread, spread)
    assert told.exits({"kernel": SPREAD}) is None
    bads: tuple[object, ...] = (
        *({"median": "much"}, [], {**SPREAD, "low": None}, {**SPREAD, "rounds": 1 << 32}),
        *({**SPREAD, "rounds": 0}, {**SPREAD, "high": float("inf")}, {**SPREAD, "median": float("nan")}),
    )
    for bad in bads:
        with pytest.raises(Malformed):
            told.exits({"kernel": SPREAD, "user": bad})


@pytest.mark.parametrize(
    ("failed", "said"),
    [
        (Failure("device", 13, 0, 0), "/dev/kvm cannot be used: Permission denied (EACCES)"),
        (Failure("api", 0, 0, 11), "KVM speaks version 11 of its interface and not 12"),
        (Failure("vm", 16, 0, 0), "KVM created no virtual machine: Device or resource busy (EBUSY)"),
        (Failure("run", 5, 0, 0), "KVM did not run a guest in real mode: Input/output error (EIO)"),
        (
            Failure("run", 0, 9, 0xFFFFFFFFFFFFFFFF),
            (
                "the CPU refused to enter a guest in real mode, in which every machine starts "
                "(KVM_EXIT_FAIL_ENTRY, exit reason 9, hardware reason 0xffffffffffffffff)"
            ),
        ),
        (
            Failure("run", 0, 17, 1),
            "KVM gave up a guest in real mode (KVM_EXIT_INTERNAL_ERROR, 17; detail 0x1)",
        ),
        (Failure("run", 0, 99, 0), "KVM gave up a guest in real mode (exit reason, 99; detail 0x0)"),
        (Failure("time", 0, 0, 0), "KVM did not come back from a guest of a few instructions in time"),
    ],
)
def test_what_failed_is_said_in_words(failed: Failure, said: str) -> None:
    assert told.failure({"failed": failed._asdict()}) == failed
    assert told.words(failed) == said


def test_no_failure_and_a_strange_one() -> None:
    assert told.failure({}) is None
    assert told.words(Failure("moon", 0, 0, 0)) == "KVM failed in a way that is not known here"
    strange = {"stage": "vm", "errno": 1 << 40, "reason": 0, "detail": 0}
    bads = ({"stage": 5}, strange, {**strange, "errno": -1}, {**strange, "errno": 0, "detail": 1 << 64})
    for bad in bads:
        with pytest.raises(Malformed):
            told.failure({"failed": bad})
