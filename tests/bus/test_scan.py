# SPDX-License-Identifier: LGPL-2.1-or-later
"""One reading for all who ask meanwhile, never one that began before it was asked for."""

from __future__ import annotations

import threading

import pytest

from nestd import tasks
from nestd.bus.scan import Scan
from tests.support import loop

_LIMIT = 30.0


class _Slow:
    """Reads how often it was read, when it is let go; never twice at the same time."""

    def __init__(self) -> None:
        self.count = 0
        self.go = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)
        self._one = threading.Lock()

    def __call__(self) -> int:
        assert self._one.acquire(blocking=False)
        try:
            self.count += 1
            self.begun.release()
            assert self.go.acquire(timeout=_LIMIT)
            return self.count
        finally:
            self._one.release()

    async def has_begun(self) -> None:
        assert await tasks.to_thread(self.begun.acquire, True, _LIMIT)


def test_who_asks_during_a_reading_gets_the_next_with_all_the_others() -> None:
    async def go() -> None:
        slow = _Slow()
        scan = Scan(slow)
        first = tasks.create_task(scan())
        await slow.has_begun()
        others = [tasks.create_task(scan()) for _ in range(20)]
        slow.go.release()
        assert await first == 1
        await slow.has_begun()
        slow.go.release()
        assert [await each for each in others] == [2] * 20
        slow.go.release()
        assert await scan() == 3

    loop.run(go())


def test_who_leaves_leaves_the_reading_to_the_others() -> None:
    async def go() -> None:
        slow = _Slow()
        scan = Scan(slow)
        first = tasks.create_task(scan())
        second = tasks.create_task(scan())
        await slow.has_begun()
        first.cancel()
        third = tasks.create_task(scan())
        slow.go.release(2)
        assert await second in (1, 2)
        assert await third == 2
        assert first.cancelled()

    loop.run(go())


def test_an_error_is_for_all_who_waited_for_it() -> None:
    def read() -> int:
        raise PermissionError(13, "Permission denied")

    async def go() -> None:
        scan = Scan(read)
        both = [tasks.create_task(scan()) for _ in range(2)]
        for each in both:
            with pytest.raises(PermissionError):
                await each

    loop.run(go())


def test_what_nobody_has_foreseen_is_no_earlier_answer() -> None:
    numbers = iter([1])

    async def go() -> None:
        scan = Scan(lambda: 10 // next(numbers, 0))
        assert await scan() == 10
        with pytest.raises(ZeroDivisionError):
            await scan()

    loop.run(go())
