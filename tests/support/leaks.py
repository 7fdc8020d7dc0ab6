# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a test leaves behind: descriptors, processes (orphans too), threads and asyncio tasks.

The tasks of nestd's own loop: tests/support/loop.py.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import threading
import time
from collections.abc import Awaitable, Generator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

_T = TypeVar("_T")
_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
_TURNS = 20  # of the loop, so that what was cancelled but not awaited may end
_GRACE = 2.0  # seconds for what is on its way out: a thread that has answered, a process that was killed


@dataclass(frozen=True, slots=True)
class Census:
    """What this process has: descriptors with what they are, descendants by pid, threads by their number."""

    descriptors: frozenset[tuple[str, str]]
    processes: frozenset[int]
    threads: frozenset[str]


def adopt_orphans() -> None:
    """Make orphans of this process's children its own children, so that they can be seen and ended."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def census() -> Census:
    """Count. Costs some tens of microseconds while there is no child process."""
    return Census(_descriptors(), _descendants(), frozenset(_names("/proc/self/task")))


def left_behind(before: Census) -> list[str]:
    """What is there now and was not `before`, in words; waits a little for what is just ending."""
    deadline = time.monotonic() + _GRACE
    while True:
        now = census()
        clean = (
            now.descriptors <= before.descriptors
            and now.processes <= before.processes
            and now.threads <= before.threads
        )
        if clean:
            return []
        if time.monotonic() > deadline:
            return _words(before, now)
        time.sleep(0.01)


def end_processes(before: Census) -> None:
    """Kill and reap what `left_behind` found, so that one bad test fails alone."""
    for pid in _descendants() - before.processes:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)


class WatchedLoop(asyncio.SelectorEventLoop):
    """An event loop that remembers the tasks which were left when its main coroutine had ended.

    `asyncio.run` cancels those in silence.
    """

    def __init__(self, left: list[str]) -> None:
        super().__init__()
        self._left = left
        self._main_seen = False

    def run_until_complete(self, future: Generator[Any, None, _T] | Awaitable[_T]) -> _T:
        """As the base class has it; after the first future, take stock."""
        first, self._main_seen = not self._main_seen, True
        try:
            return super().run_until_complete(future)
        finally:
            if first:
                super().run_until_complete(self._take_stock())

    async def _take_stock(self) -> None:
        current = asyncio.current_task()
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        self._left += [f"task {task!r}" for task in asyncio.all_tasks(self) if task is not current]


class WatchedPolicy(asyncio.DefaultEventLoopPolicy):
    """Gives watched loops; `left` collects their findings."""

    def __init__(self) -> None:
        super().__init__()
        self.left: list[str] = []

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """One that writes to `left`."""
        return WatchedLoop(self.left)


def _descriptors() -> frozenset[tuple[str, str]]:
    found = set()
    for name in _names("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the descriptor that the listing itself used
            found.add((name, str(Path(f"/proc/self/fd/{name}").readlink())))
    return frozenset(found)


def _descendants() -> frozenset[int]:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return frozenset()  # no child, and as orphans are adopted no grandchild either
    parents: dict[int, list[int]] = {}
    for name in _names("/proc"):
        if name.isdecimal():
            with suppress(FileNotFoundError, ProcessLookupError):
                stat = Path(f"/proc/{name}/stat").read_text(errors="replace")
                parents.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(name))
    found: set[int] = set()
    todo = list(parents.get(os.getpid(), []))
    while todo:
        pid = todo.pop()
        found.add(pid)
        todo += parents.get(pid, [])
    return frozenset(found)


def _words(before: Census, now: Census) -> list[str]:
    names = {str(thread.native_id): thread.name for thread in threading.enumerate()}
    return [
        *(f"descriptor {number} {what}" for number, what in sorted(now.descriptors - before.descriptors)),
        *(f"process {pid} ({_command(pid)})" for pid in sorted(now.processes - before.processes)),
        *(f"thread {names.get(number, number)}" for number in sorted(now.threads - before.threads)),
    ]


def _command(pid: int) -> str:
    try:
        line = Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return "gone"
    return line.replace("\0", " ").strip() or "ended, not reaped"


def _names(folder: str) -> list[str]:
    return [path.name for path in Path(folder).iterdir()]
