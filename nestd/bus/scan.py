# SPDX-License-Identifier: LGPL-2.1-or-later
"""What takes long to read and anybody may ask for: read in a thread, once for all who ask meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from nestd import tasks

T = TypeVar("T")


class Scan(Generic[T]):
    """`await scan()` gives what `read` returned, or raises what it raised; it began after it was asked for.

    One reading at a time, however many ask and leave: who asks during one gets the next, with all the others.
    """

    def __init__(self, read: Callable[[], T]) -> None:
        self._read = read
        self._begun = self._done = 0
        self._found: T | Exception | None = None
        self._running: tasks.Task[None] | None = None

    async def __call__(self) -> T:
        wanted = self._begun + 1
        while self._done < wanted:
            if self._running is None:
                # A task of its own, as the thread would go on when whoever asked first has left.
                self._running = tasks.create_task(self._run())
            await tasks.wait([self._running])
        if isinstance(self._found, Exception):
            raise self._found
        return self._found  # type: ignore[return-value]  # not None, as a reading is done

    async def _run(self) -> None:
        self._begun += 1
        try:
            self._found = await tasks.to_thread(self._read)
        except Exception as error:  # raised to all who have asked
            self._found = error
        finally:
            self._running = None
            self._done = self._begun
