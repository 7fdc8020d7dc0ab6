# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whoever leaves the bus has his work cancelled, once: what is then undone is not cut short."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from nestd import tasks
from nestd.bus.callers import Callers
from nestd.bus.connection import Connection
from nestd.bus.matches import BUS, Signal
from tests.support import loop

SENDER = ":1.7"


class _Bus:
    """A bus that tells of a sender's end by its signal, and by the answer to NameHasOwner when it is let."""

    def __init__(self) -> None:
        self.heard: Callable[[Signal], None] | None = None
        self.answers = tasks.Event()

    async def subscribe(self, _: str, heard: Callable[[Signal], None]) -> Callable[[], Awaitable[None]]:
        self.heard = heard

        async def unsubscribe() -> None:
            self.heard = None

        return unsubscribe

    async def bus(self, *_: object) -> Sequence[Any]:
        await self.answers.wait()
        return [False]


def test_the_end_of_a_sender_that_is_told_twice() -> None:
    async def main() -> None:
        bus = _Bus()
        callers = Callers(cast(Connection, bus))
        said: list[str] = []

        async def work() -> None:
            try:
                await tasks.Event().wait()
            finally:
                await tasks.sleep(0.05)
                said.append("undone")

        callers.start(SENDER, work(), lambda cancelled: said.append(f"ended {cancelled}"))
        await tasks.sleep(0.01)
        assert bus.heard is not None
        bus.heard(Signal(BUS, "/org/freedesktop/DBus", BUS, "NameOwnerChanged", [SENDER, SENDER, ""]))
        await tasks.sleep(0.01)
        bus.answers.set()
        await tasks.sleep(0.01)
        # What it had sent before it left, and was not looked at yet.
        callers.start(SENDER, work(), lambda cancelled: said.append(f"never began {cancelled}"))
        await tasks.sleep(0.1)
        assert said == ["never began True", "undone", "ended True"]
        await callers.close()

    loop.run(main())
