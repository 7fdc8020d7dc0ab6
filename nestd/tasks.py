# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a coroutine waits with: tasks, events, limits of time, threads. And `run`, which begins it all.

Names and meanings are asyncio's, but for one: cancelling a task ends its waiting, never what it
waits for (nestd/futures.py), so nothing needs a shield.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Coroutine, Generator, Iterable
from types import TracebackType
from typing import Any, TypeVar

from nestd.futures import Future, Interruption, Task
from nestd.loop import RUNNING, Cancelled, Loop, Unforeseen, running

__all__ = [
    "Cancelled", "Event", "Future", "Task", "create_task", "run", "sleep", "timeout", "to_thread", "wait",
]  # fmt: skip

T = TypeVar("T")


def told_on_stderr(what: str, error: BaseException) -> None:
    """What happens to what nobody foresaw, if nothing else is said."""
    sys.stderr.write(f"{what}:\n")
    sys.excepthook(type(error), error, error.__traceback__)


def run(main: Coroutine[Any, Any, T], unforeseen: Unforeseen = told_on_stderr) -> T:
    """Run a coroutine to its end on a loop of its own, and give its result.

    What it left under way is cancelled and waited for. `unforeseen` gets what callbacks raise, and the
    failures of tasks that nobody asked for.
    """
    if RUNNING.get() is not None:
        main.close()
        raise RuntimeError("an event loop runs here already")
    loop = Loop(unforeseen)
    token = RUNNING.set(loop)
    try:
        task = Task(main)
        try:
            loop.run_until(task.done)
        finally:
            loop.run_until(Task(_clear_up(loop)).done)
        return task.result()
    finally:
        RUNNING.reset(token)
        loop.close()


async def _clear_up(loop: Loop) -> None:
    while left := loop.tasks - {loop.task}:
        for each in left:
            each.cancel()
        await wait(left)
    await sleep(0)  # what the last of them asked for is called


def create_task(coroutine: Coroutine[Any, Any, T]) -> Task[T]:
    """Have it run from the next turn on."""
    return Task(coroutine)


class Event:
    """Something that is so or not; tasks wait until it is."""

    def __init__(self) -> None:
        self._set = False
        self._waiting: set[Future[None]] = set()

    def is_set(self) -> bool:
        """Whether it is so."""
        return self._set

    def set(self) -> None:
        """It is so now: all that wait go on."""
        self._set = True
        waiting, self._waiting = self._waiting, set()
        for each in waiting:
            each.set_result(None)

    def clear(self) -> None:
        """It is so no more."""
        self._set = False

    async def wait(self) -> None:
        """Return when it is so."""
        if self._set:
            return
        future = Future[None]()
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.discard(future)


class timeout:  # noqa: N801 -- it is used as asyncio's
    """`async with timeout(seconds):` raises TimeoutError where the block still waits after them.

    A cancellation from outside goes through it as such, also when both come at once. With 0 or less a block
    that has to wait fails.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def __aenter__(self) -> None:
        loop = running()
        if loop.task is None:
            raise RuntimeError("only a task has a limit of time")
        self._task = loop.task
        self._expired = Interruption(self._task.limits)
        self._task.limits += 1
        self._timer = loop.call_later(self._seconds, self._task.interrupt, self._expired)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._task.limits -= 1
        self._timer.cancel()
        if error is self._expired:
            raise TimeoutError from error


async def sleep(seconds: float) -> None:
    """Go on after `seconds`; 0: in the next turn."""
    if seconds <= 0:
        await _NextTurn()
        return
    over = Event()
    timer = running().call_later(seconds, over.set)
    try:
        await over.wait()
    finally:
        timer.cancel()


class _NextTurn:
    def __await__(self) -> Generator[None, None, None]:
        yield


async def wait(futures: Iterable[Future[Any]], limit: float | None = None) -> None:
    """Return when all are done, however they ended, or after `limit` seconds."""
    pending = {each for each in futures if not each.done()}
    if not pending:
        return
    over = Event()

    def done(one: Future[Any]) -> None:
        pending.discard(one)
        if not pending:
            over.set()

    for each in pending:
        each.add_done_callback(done)
    timer = None if limit is None else running().call_later(limit, over.set)
    try:
        await over.wait()
    finally:
        for each in pending:
            each.remove_done_callback(done)
        if timer is not None:
            timer.cancel()


async def to_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Run what blocks in a thread of its own; its result or its exception.

    A thread cannot be ended: if the task is cancelled, it runs on, and its result is dropped.
    """
    from threading import Thread  # noqa: PLC0415 -- rarely needed

    result: Future[T] = Future()  # the thread settles it, and nobody waits for it before the pipe is closed
    over = Event()
    # The thread's end of the pipe is its own to close, at whatever time: the loop may be gone by then.
    ours, its = os.pipe2(os.O_CLOEXEC)

    def work() -> None:
        try:
            result.set_result(function(*arguments))
        except BaseException as error:  # it is raised in the task
            result.set_exception(error)
        finally:
            os.close(its)

    try:
        result.loop.add_reader(ours, over.set)
        try:
            thread = Thread(target=work, daemon=True)
            thread.start()
        except BaseException:
            os.close(its)
            raise
        await over.wait()
        thread.join()
    finally:
        result.loop.remove_reader(ours)
        os.close(ours)
    return result.result()
