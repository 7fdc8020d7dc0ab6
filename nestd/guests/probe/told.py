# SPDX-License-Identifier: LGPL-2.1-or-later
"""What exits.py and inside.py told, as values, and as sentences for a person.

Their lines come from a child of nestd, or over the console of a guest, which may say anything.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from nestd.errors import Malformed

# Up to the next such beginning and no further: a guest that says nothing else would cost a look at 16,000
# characters for each.
_LINE = re.compile(r"nestd-probe (\{(?:(?!nestd-probe \{).){1,16000}\}) \.\r?$", re.MULTILINE)
# KVM_EXIT_*, include/uapi/linux/kvm.h.
_REASONS = {8: "KVM_EXIT_SHUTDOWN", 17: "KVM_EXIT_INTERNAL_ERROR"}
FAIL_ENTRY = 9
_MAX_ERRNO = 4095  # include/linux/err.h


class Spread(NamedTuple):
    """What one exit costs in nanoseconds: the median of `rounds` rounds, and its quartiles."""

    median: float
    low: float
    high: float
    rounds: int


class Exits(NamedTuple):
    """Two kinds of exit: one that the kernel handles (CPUID), one that goes to user space (a port)."""

    kernel: Spread
    user: Spread


class Failure(NamedTuple):
    """What stood in the way of the small guest.

    `stage` is `device`, `api`, `vm`, `run` or `time`; `errno` the kernel's; `reason` KVM's exit reason, and
    `detail` the hardware's word with it (with `api`: the version).
    """

    stage: str
    errno: int
    reason: int
    detail: int


def merged(text: str) -> dict[str, object]:
    """All that was told, as one mapping; what is no whole line of it is passed over."""
    found: dict[str, object] = {}
    for match in _LINE.finditer(text):
        try:
            told = json.loads(match[1])
        except (ValueError, RecursionError):
            continue
        if isinstance(told, dict):
            found |= told
    return found


def exits(told: Mapping[str, object]) -> Exits | None:
    """The two numbers; None if they were not told. Malformed."""
    if "kernel" not in told or "user" not in told:
        return None
    return Exits(_spread(told["kernel"]), _spread(told["user"]))


def _spread(value: object) -> Spread:
    match value:
        case {"median": float(median), "low": float(low), "high": float(high), "rounds": int(rounds)} if (
            all(map(math.isfinite, (median, low, high))) and 0 < rounds < 1 << 32
        ):
            return Spread(median, low, high, rounds)
    raise Malformed("the measurement is not what was expected")


def failure(told: Mapping[str, object]) -> Failure | None:
    """What stood in the way; None if nothing did. Malformed."""
    match told.get("failed"):
        case None:
            return None
        case {"stage": str(stage), "errno": int(number), "reason": int(reason), "detail": int(detail)} if (
            0 <= number <= _MAX_ERRNO and 0 <= reason < 1 << 32 and 0 <= detail < 1 << 64
        ):
            return Failure(stage, number, reason, detail)
    raise Malformed("the failure is not what was expected")


def words(failed: Failure) -> str:
    """A clause for a person: what KVM did not do, in the kernel's terms."""
    kernel = f"{os.strerror(failed.errno)} ({errno.errorcode.get(failed.errno, failed.errno)})"
    match failed.stage:
        case "device":
            said = f"/dev/kvm cannot be used: {kernel}"
        case "api":
            said = f"KVM speaks version {failed.detail} of its interface and not 12"
        case "vm":
            said = f"KVM created no virtual machine: {kernel}"
        case "time":
            said = "KVM did not come back from a guest of a few instructions in time"
        case "run" if failed.reason == FAIL_ENTRY:
            said = (
                "the CPU refused to enter a guest in real mode, in which every machine starts "
                f"(KVM_EXIT_FAIL_ENTRY, exit reason 9, hardware reason {failed.detail:#x})"
            )
        case "run" if failed.errno:
            said = f"KVM did not run a guest in real mode: {kernel}"
        case "run":
            reason = _REASONS.get(failed.reason, "exit reason")
            said = f"KVM gave up a guest in real mode ({reason}, {failed.reason}; detail {failed.detail:#x})"
        case _:
            said = "KVM failed in a way that is not known here"
    return said
