# SPDX-License-Identifier: LGPL-2.1-or-later
"""Futures, tasks, limits of time, threads, and `run`."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from nestd import tasks
from nestd.loop import running
from tests.support import loop

LONG = 3600.0


async def outcome(awaited: Awaitable[Any]) -> Any:
    """What came of it, exceptions and cancellations too."""
    try:
        return await awaited
    except (Exception, tasks.Cancelled) as error:
        return error


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await tasks.sleep(0)


def test_a_future_comes_once() -> None:
    async def go() -> None:
        future = tasks.Future[int]()
        assert not future.done()
        assert not future.cancelled()
        with pytest.raises(RuntimeError, match="not there yet"):
            future.result()
        with pytest.raises(RuntimeError, match="not there yet"):
            future.exception()
        future.set_result(7)
        assert (future.done(), future.result(), future.exception(), await future) == (True, 7, None, 7)
        assert not future.cancel()
        with pytest.raises(RuntimeError, match="done already"):
            future.set_result(8)
        with pytest.raises(RuntimeError, match="done already"):
            future.set_exception(ValueError())

    loop.run(go())


def test_a_future_fails_or_is_cancelled() -> None:
    async def go() -> None:
        failed, cancelled = tasks.Future[int](), tasks.Future[int]()
        failed.set_exception(ValueError("why"))
        with pytest.raises(ValueError, match="why"):
            await failed
        assert str(failed.exception()) == "why"
        assert cancelled.cancel()
        assert cancelled.cancelled()
        with pytest.raises(tasks.Cancelled):
            await cancelled
        with pytest.raises(tasks.Cancelled):
            cancelled.exception()

    loop.run(go())


def test_done_callbacks_run_from_the_loop_in_their_order() -> None:
    async def go() -> None:
        future, seen = tasks.Future[int](), list[str]()
        unwanted: Callable[[Any], object] = lambda _: seen.append("never")  # noqa: E731
        future.add_done_callback(lambda done: seen.append(f"first {done.result()}"))
        future.add_done_callback(unwanted)
        future.add_done_callback(lambda _: seen.append("second"))
        future.remove_done_callback(unwanted)
        future.remove_done_callback(unwanted)
        future.set_result(1)
        assert not seen
        await turns(1)
        future.add_done_callback(lambda _: seen.append("late"))
        assert seen == ["first 1", "second"]
        await turns(1)
        assert seen[2:] == ["late"]

    loop.run(go())


def test_a_task_runs_from_the_next_turn_on_and_many_may_await_it() -> None:
    async def go() -> None:
        seen: list[int] = []

        async def work() -> str:
            seen.append(1)
            await turns()
            return "done"

        task = tasks.create_task(work())
        assert not seen
        assert await loop.together(outcome(task), outcome(task)) == ["done", "done"]
        assert await task == "done"

    loop.run(go())


def test_a_failure_goes_to_whoever_awaits() -> None:
    async def fail() -> None:
        await turns()
        raise ValueError("why")

    async def go() -> None:
        task = tasks.create_task(fail())
        assert [str(one) for one in await loop.together(outcome(task), outcome(task))] == ["why", "why"]

    loop.run(go())
    with pytest.raises(ValueError, match="why"):
        loop.run(fail())


def test_a_failure_that_nobody_asked_for_is_told() -> None:
    async def fail() -> None:
        raise ValueError("why")

    async def go() -> None:
        tasks.create_task(fail())
        await turns()
        gc.collect()  # the failure's traceback holds the task

    told: list[tuple[str, str]] = []
    tasks.run(go(), lambda what, error: told.append((what, repr(error))))
    [(what, error)] = told
    assert "fail" in what
    assert error == "ValueError('why')"


@pytest.mark.parametrize("when", ["not begun", "waits", "in the next turn", "was woken", "waits for a task"])
def test_a_task_is_cancelled_wherever_it_is(when: str) -> None:
    async def go() -> None:
        future, begun = tasks.Future[None](), list[int]()
        other = tasks.create_task(tasks.sleep(LONG))

        async def work() -> None:
            begun.append(1)
            if when == "in the next turn":
                await turns(99)
            await (other if when == "waits for a task" else future)

        task = tasks.create_task(work())
        if when != "not begun":
            await turns()
        if when == "was woken":
            future.set_result(None)
        assert task.cancel()
        assert task.cancel()
        assert not task.done()
        assert isinstance(await outcome(task), tasks.Cancelled)
        assert task.cancelled()
        assert not task.cancel()
        assert len(begun) == (when != "not begun")
        # What it waited for goes on.
        assert not other.done()
        assert future.done() == (when == "was woken")
        other.cancel()

    loop.run(go())


def test_a_task_may_go_on_after_a_cancellation_and_ends_as_it_likes() -> None:
    async def go() -> None:
        async def stubborn() -> str:
            try:
                await tasks.sleep(LONG)
            except tasks.Cancelled:
                await turns()
            return "all the same"

        task = tasks.create_task(stubborn())
        await turns()
        task.cancel()
        assert await task == "all the same"

    loop.run(go())


def test_a_second_cancellation_reaches_what_cleans_up() -> None:
    async def go() -> None:
        seen: list[str] = []

        async def work() -> None:
            try:
                await tasks.sleep(LONG)
            finally:
                try:
                    await tasks.sleep(LONG)
                finally:
                    seen.append("cleaned up")

        task = tasks.create_task(work())
        await turns()
        task.cancel()
        await turns()
        assert not task.done()
        task.cancel()
        assert isinstance(await outcome(task), tasks.Cancelled)
        assert seen == ["cleaned up"]

    loop.run(go())


def test_a_task_that_cancels_itself_notices_where_it_waits_next() -> None:
    async def go() -> None:
        seen: list[str] = []

        async def work(wait: bool) -> str:
            task = running().task
            assert task is not None
            task.cancel()
            seen.append("goes on")
            if wait:
                await tasks.Future[None]()
            return "ended"

        assert isinstance(await outcome(tasks.create_task(work(True))), tasks.Cancelled)
        assert await tasks.create_task(work(False)) == "ended"
        assert seen == ["goes on"] * 2

    loop.run(go())


def test_what_is_not_of_this_loop_cannot_be_waited_for() -> None:
    class Strange:
        def __await__(self) -> Any:
            yield "something else"

    async def go() -> None:
        assert "something else" in str(await outcome(tasks.create_task(_awaiting(Strange()))))

    loop.run(go())


async def _awaiting(what: Awaitable[Any]) -> Any:
    return await what


def test_events() -> None:
    async def go() -> None:
        event = tasks.Event()
        waiting = [tasks.create_task(event.wait()) for _ in range(3)]
        await turns()
        waiting[0].cancel()
        await turns()
        assert [one.done() for one in waiting] == [True, False, False]
        event.set()
        event.set()
        assert event.is_set()
        await tasks.wait(waiting)
        await event.wait()
        event.clear()
        assert not event.is_set()
        late = tasks.create_task(event.wait())
        await turns()
        assert not late.done()
        late.cancel()

    loop.run(go())


def test_wait_returns_when_all_are_done_however_they_ended() -> None:
    async def go() -> None:
        good, bad, gone = (tasks.Future[int]() for _ in range(3))
        waiting = tasks.create_task(tasks.wait([good, bad, gone]))
        good.set_result(1)
        await turns()
        bad.set_exception(ValueError())
        await turns()
        assert not waiting.done()
        gone.cancel()
        await waiting
        await tasks.wait([])
        await tasks.wait([good, bad], 0)

    loop.run(go())


def test_wait_returns_after_its_limit_and_when_cancelled() -> None:
    async def go() -> None:
        never = tasks.Future[int]()
        await tasks.wait([never], 0.01)
        await tasks.wait([never], 0)
        waiting = tasks.create_task(tasks.wait([never]))
        await turns()
        waiting.cancel()
        assert isinstance(await outcome(waiting), tasks.Cancelled)
        assert not never.done()

    loop.run(go())


async def limited(seconds: float, awaited: Awaitable[Any]) -> Any:
    async with tasks.timeout(seconds):
        return await awaited


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 0.01])
def test_a_limit_of_time_ends_what_waits_still(seconds: float) -> None:
    async def go() -> None:
        never = tasks.Future[None]()
        with pytest.raises(TimeoutError):
            await limited(seconds, never)
        assert not never.done()
        await turns()  # nothing comes afterwards

    loop.run(go())


@pytest.mark.parametrize("seconds", [0.0, LONG])
def test_within_its_limit_nothing_happens(seconds: float) -> None:
    async def go() -> None:
        done = tasks.Future[str]()
        done.set_result("in time")
        assert await limited(seconds, done) == "in time"
        with pytest.raises(KeyError):
            async with tasks.timeout(seconds):
                raise KeyError
        await turns()

    loop.run(go())


def test_a_limit_that_runs_out_as_the_work_ends() -> None:
    async def go() -> None:
        late, just = tasks.Future[str](), tasks.Future[str]()
        task = tasks.create_task(limited(0, late))
        await turns(1)  # it has begun: its limit runs out in the next turn, before this goes on
        running().call_soon(late.set_result, "late")
        assert isinstance(await outcome(task), TimeoutError)
        task = tasks.create_task(limited(0, just))
        running().call_soon(just.set_result, "woken before, and not yet run")
        assert isinstance(await outcome(task), TimeoutError)
        assert late.done()
        assert just.done()

    loop.run(go())


@pytest.mark.parametrize("first", ["limit", "cancellation"])
def test_of_a_limit_and_a_cancellation_at_once_the_cancellation_counts(first: str) -> None:
    async def go() -> None:
        task = tasks.create_task(limited(0, tasks.Future[None]()))
        # It begins in the next turn, and its limit runs out in the one after that.
        if first == "limit":
            await turns(1)
            running().call_soon(task.cancel)
        else:
            await turns(1)
            task.cancel()
        assert isinstance(await outcome(task), tasks.Cancelled)

    loop.run(go())


def test_a_cancellation_goes_through_a_limit() -> None:
    async def go() -> None:
        task = tasks.create_task(limited(LONG, tasks.Future[None]()))
        await turns()
        task.cancel()
        assert isinstance(await outcome(task), tasks.Cancelled)

    loop.run(go())


@pytest.mark.parametrize(("inner", "outer"), [(0.01, LONG), (LONG, 0.01), (0.0, 0.0), (0.01, 0.01)])
def test_limits_within_limits(inner: float, outer: float) -> None:
    async def go() -> None:
        seen: list[str] = []
        try:
            async with tasks.timeout(outer):
                try:
                    async with tasks.timeout(inner):
                        await tasks.Future[None]()
                except TimeoutError:
                    seen.append("inner")
                    await turns(9)
                    if outer < LONG:
                        await tasks.Future[None]()
        except TimeoutError:
            seen.append("outer")
        # The wider one is never lost, whichever came first.
        assert seen[-1] == ("inner" if outer == LONG else "outer")
        task = running().task
        assert task is not None
        assert task.limits == 0

    loop.run(go())


def test_a_limit_also_ends_what_cleans_up_after_one_within() -> None:
    async def go() -> None:
        with pytest.raises(TimeoutError):
            async with tasks.timeout(0.02):
                try:
                    await limited(0.001, tasks.Future[None]())
                finally:
                    await tasks.Future[None]()

    loop.run(go())


def test_only_a_task_has_limits() -> None:
    async def go() -> None:
        told: list[str] = []

        def callback() -> None:
            try:
                tasks.timeout(1).__aenter__().send(None)
            except RuntimeError as error:
                told.append(str(error))

        running().call_soon(callback)
        await turns()
        assert told == ["only a task has a limit of time"]

    loop.run(go())


def test_a_thread_gives_its_result_or_its_exception() -> None:
    async def go() -> None:
        assert await tasks.to_thread(threading.get_ident) != threading.get_ident()
        assert await tasks.to_thread(max, 3, 4) == 4
        with pytest.raises(ZeroDivisionError):
            await tasks.to_thread(divmod, 1, 0)
        many = [tasks.to_thread(pow, 2, number) for number in range(20)]
        assert await loop.together(*many) == [2**number for number in range(20)]

    loop.run(go())


def test_a_thread_runs_on_when_its_task_is_cancelled() -> None:
    go_on, done = threading.Event(), threading.Event()

    def work() -> None:
        go_on.wait(20)
        done.set()

    async def go() -> None:
        task = tasks.create_task(tasks.to_thread(work))
        await turns()
        task.cancel()
        assert isinstance(await outcome(task), tasks.Cancelled)

    loop.run(go())
    assert not done.is_set()
    go_on.set()  # the loop is gone by now
    assert done.wait(20)


def test_run_ends_what_is_left_and_waits_for_it() -> None:
    seen: list[str] = []

    async def left(name: str) -> None:
        try:
            await tasks.sleep(LONG)
        finally:
            await turns()
            seen.append(name)
            if name == "first":
                tasks.create_task(left("second"))
                await turns()

    async def go() -> str:
        tasks.create_task(left("first"))
        await turns()
        return "result"

    assert tasks.run(go()) == "result"
    assert seen == ["first", "second"]


def test_run_calls_what_the_last_tasks_asked_for() -> None:
    seen: list[bool] = []

    async def go() -> None:
        task = tasks.create_task(tasks.sleep(LONG))
        task.add_done_callback(lambda done: seen.append(done.cancelled()))

    tasks.run(go())
    assert seen == [True]


def test_run_is_not_for_within_a_loop() -> None:
    async def go() -> None:
        with pytest.raises(RuntimeError, match="runs here already"):
            tasks.run(turns())
        assert await tasks.to_thread(tasks.run, _seven()) == 7  # another thread has its own

    loop.run(go())


async def _seven() -> int:
    await turns()
    return 7


def test_what_ends_a_program_ends_run_and_cleans_up() -> None:
    seen: list[str] = []

    async def go() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            await tasks.sleep(LONG)
        finally:
            seen.append("cleaned up")

    with pytest.raises(KeyboardInterrupt):
        tasks.run(go())
    assert seen == ["cleaned up"]


def test_what_nobody_caught_is_said_on_stderr_if_nothing_else_is_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def go() -> None:
        running().call_soon(int, "no number")
        await turns()

    tasks.run(go())
    said = capsys.readouterr().err
    assert "a callback of the loop failed" in said
    assert "ValueError: invalid literal for int() with base 10: 'no number'" in said
