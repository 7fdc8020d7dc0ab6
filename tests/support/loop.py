# SPDX-License-Identifier: LGPL-2.1-or-later
"""nestd's own event loop for a test: what nobody caught, and tasks that are left, fail it."""

from __future__ import annotations

import traceback
from collections.abc import Coroutine
from typing import Any, TypeVar

from nestd import tasks
from nestd.loop import running

T = TypeVar("T")

# So many turns a task that was cancelled may take to its end.
_TURNS = 5


def run(main: Coroutine[Any, Any, T]) -> T:
    """As tasks.run, which cancels in silence what is left.

    AssertionError: something is, or raised what nobody caught.
    """
    faults: list[str] = []

    def unforeseen(what: str, error: BaseException) -> None:
        faults.append(f"{what}: {''.join(traceback.format_exception(error))}")

    async def watched() -> T:
        try:
            return await main
        finally:
            for _ in range(_TURNS):
                await tasks.sleep(0)
            loop = running()
            faults.extend(f"left behind: {task!r}" for task in loop.tasks - {loop.task})

    try:
        return tasks.run(watched(), unforeseen)
    finally:
        assert not faults, "\n".join(faults)


async def together(*coroutines: Coroutine[Any, Any, Any]) -> list[Any]:
    """Run all at once; what each returned or raised."""
    started = [tasks.create_task(each) for each in coroutines]
    await tasks.wait(started)
    return [task.exception() or task.result() for task in started]
