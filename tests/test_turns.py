# SPDX-License-Identifier: LGPL-2.1-or-later
"""One at a time, in order; who leaves the row, or fails, holds nobody up."""

from __future__ import annotations

import pytest

from nestd import tasks
from nestd.turns import Turns
from tests.support import loop


def test_one_after_the_other() -> None:
    story: list[str] = []

    async def scenario() -> None:
        turns = Turns()

        async def visit(name: str) -> None:
            async with turns.next():
                story.append(f"{name} in")
                await tasks.sleep(0.01)
                story.append(f"{name} out")

        await loop.together(*(visit(name) for name in "abc"))
        await visit("d")

    loop.run(scenario())
    assert story == [f"{name} {what}" for name in "abcd" for what in ("in", "out")]


def test_who_leaves_closes_the_row_up() -> None:
    story: list[str] = []

    async def scenario() -> None:
        turns = Turns()
        gate = tasks.Event()

        async def visit(name: str) -> None:
            async with turns.next():
                story.append(name)
                await gate.wait()
                if name == "c":
                    raise ValueError(name)

        visits = {name: tasks.create_task(visit(name)) for name in "abcd"}
        await tasks.sleep(0)
        visits["b"].cancel()
        with pytest.raises(tasks.Cancelled):
            await visits["b"]
        assert story == ["a"]  # the turn of who left is not the next one's yet
        visits["a"].cancel()
        with pytest.raises(tasks.Cancelled):
            await visits["a"]
        gate.set()
        with pytest.raises(ValueError, match="c"):
            await visits["c"]
        await visits["d"]

    loop.run(scenario())
    assert story == ["a", "c", "d"]
