# SPDX-License-Identifier: LGPL-2.1-or-later
"""What an attack must not cost: the daemon's memory, descriptors, life and words."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from nestd import errors
from tests.support.daemon import TOP, Daemon

CLOSED = frozenset(kind.name for kind in errors.BusError.__subclasses__())
MEMORY = 2 << 10  # KiB
# Lines that the limiters let through (10 of a kind in 30 s, and one that says so), for a handful of kinds.
LINES = 100
_CALM = 20.0  # seconds that it may take until all that was under way has ended
_TELLS_TOO_MUCH = ("unforeseen", "Traceback", ".py", "[Errno", f"{TOP}/", "-packages/", "object at 0x")


@dataclass(frozen=True, slots=True)
class Size:
    """KiB of memory that are the process's own (USS) and in RAM (RSS), and how many descriptors."""

    uss: int
    rss: int
    descriptors: int

    def exceeds(self, before: Size) -> list[str]:
        """What has grown beyond what is allowed, in words."""
        grown = [
            f"{name} from {old} to {new} KiB"
            for name, old, new in (("USS", before.uss, self.uss), ("RSS", before.rss, self.rss))
            if new > old + MEMORY
        ]
        if self.descriptors != before.descriptors:
            grown.append(f"descriptors from {before.descriptors} to {self.descriptors}")
        return grown


def size(pid: int) -> Size:
    """Measure a process (proc(5), smaps_rollup)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    known = {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines)}
    uss = known["Private_Clean"] + known["Private_Dirty"]
    return Size(uss, known["Rss"], len(os.listdir(f"/proc/{pid}/fd")))  # noqa: PTH208


def at_rest(pid: int) -> Size:
    """Measure a process once it has as many descriptors as half a second before: nothing is under way."""
    deadline = time.monotonic() + _CALM
    found = size(pid)
    while True:
        time.sleep(0.5)
        before, found = found, size(pid)
        if found.descriptors == before.descriptors or time.monotonic() > deadline:
            return found


def grown(pid: int, before: Size) -> list[str]:
    """What the process has more than `before`, once it is calm."""
    deadline = time.monotonic() + _CALM
    while (found := size(pid).exceeds(before)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def told_too_much(text: str) -> bool:
    """Whether a text that a caller was sent shows the inside, or would do something on a terminal."""
    return any(word in text for word in _TELLS_TOO_MUCH) or not text.isprintable()


def alive(daemon: Daemon) -> bool:
    """Whether the process is there and is no zombie."""
    return Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()[0] in "RSD"
