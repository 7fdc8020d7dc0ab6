# SPDX-License-Identifier: LGPL-2.1-or-later
"""One at a time, in the order in which they came."""

from __future__ import annotations

from types import TracebackType

from nestd import tasks


class Turns:
    """`async with turns.next(): ...` waits until all who came before are through, or have left."""

    def __init__(self) -> None:
        self._last: tasks.Future[None] | None = None

    def next(self) -> _Turn:
        """The turn behind all others."""
        mine = tasks.Future[None]()
        before, self._last = self._last, mine
        return _Turn(before, mine)


class _Turn:
    def __init__(self, before: tasks.Future[None] | None, mine: tasks.Future[None]) -> None:
        self._before = before
        self._mine = mine

    async def __aenter__(self) -> None:
        if self._before is None:
            return
        try:
            await tasks.wait([self._before])
        except BaseException:
            # Who leaves the row closes it up.
            self._before.add_done_callback(lambda _: self._mine.set_result(None))
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._mine.set_result(None)
