# SPDX-License-Identifier: LGPL-2.1-or-later
"""Futures, and tasks, which are coroutines on the loop.

Names and meanings are asyncio's, but for one: cancelling a task ends its waiting, never what it
waits for. What must end with the task is cancelled by the task (`finally`); so nothing needs a shield.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

from nestd.loop import Cancelled, Loop, running

T = TypeVar("T")


class Interruption(Cancelled):
    """A cancellation by something within the task itself, as deep within as `depth` says."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.depth = depth


class Future(Generic[T]):
    """One result that comes later, or one exception, or a cancellation. `await` gives it."""

    __slots__ = ("__weakref__", "_callbacks", "_done", "_error", "_result", "loop")

    def __init__(self, loop: Loop | None = None) -> None:
        self.loop = loop or running()
        self._callbacks: list[Callable[[Any], object]] = []
        self._done = False
        self._result: T | None = None
        self._error: BaseException | None = None

    def done(self) -> bool:
        """Whether it has come."""
        return self._done

    def cancelled(self) -> bool:
        """Whether it was cancelled and will not come."""
        return isinstance(self._error, Cancelled)

    def result(self) -> T:
        """What came; raises the exception that came instead, or Cancelled. RuntimeError: nothing has yet."""
        error = self.exception()
        if error is not None:
            raise error
        return self._result  # type: ignore[return-value]  # None only where T is

    def exception(self) -> BaseException | None:
        """The exception that came, or None for a result. Raises Cancelled; RuntimeError: nothing has yet."""
        if not self._done:
            raise RuntimeError("the result is not there yet")
        if self.cancelled():
            raise Cancelled
        return self._error

    def set_result(self, result: T) -> None:
        """Let it come. RuntimeError: it has already."""
        self._settle(result, None)

    def set_exception(self, error: BaseException) -> None:
        """Let it fail. RuntimeError: it is done already."""
        self._settle(None, error)

    def cancel(self) -> bool:
        """Have it never come; whether that was still possible."""
        if self._done:
            return False
        self._settle(None, Cancelled())
        return True

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        """Have it called with this future, on the loop, once it is done."""
        if self._done:
            self.loop.call_soon(callback, self)
        else:
            self._callbacks.append(callback)

    def remove_done_callback(self, callback: Callable[[Any], object]) -> None:
        """Have it not called any more, if that is not under way. One that is not there is fine."""
        if callback in self._callbacks:
            self._callbacks.remove(callback)

    def __await__(self) -> Generator[Any, None, T]:
        if not self._done:
            yield self
        return self.result()

    def _settle(self, result: T | None, error: BaseException | None) -> None:
        if self._done:
            raise RuntimeError("it is done already")
        self._done, self._result, self._error = True, result, error
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            self.loop.call_soon(callback, self)


class Task(Future[T]):
    """A coroutine that runs on the loop; its end is the future's result. The loop keeps it until then.

    A failure that nobody has asked for by the time the task is forgotten is told as unforeseen.
    """

    __slots__ = ("_coroutine", "_interruption", "_seen", "_waits_for", "limits")

    def __init__(self, coroutine: Coroutine[Any, Any, T], loop: Loop | None = None) -> None:
        super().__init__(loop)
        self.limits = 0  # of time, that it is within
        self._coroutine = coroutine
        self._interruption: BaseException | None = None  # to be raised in it at its next step
        self._waits_for: Future[Any] | None = None
        self._seen = False
        self.loop.tasks.add(self)
        self.loop.call_soon(self._step)

    def __repr__(self) -> str:
        name = getattr(self._coroutine, "__qualname__", repr(self._coroutine))
        return f"<Task {name} {'done' if self._done else 'under way'}>"

    def exception(self) -> BaseException | None:
        """As Future's."""
        self._seen = True
        return super().exception()

    def cancel(self) -> bool:
        """Have Cancelled raised in it where it waits; whether it is not done yet.

        It ends cancelled unless it catches that. What it waits for goes on. One that comes to its end
        without waiting again does not notice.
        """
        return self.interrupt(Cancelled())

    def interrupt(self, reason: Cancelled) -> bool:
        """Have `reason` raised in it where it waits; whether it is not done yet.

        Of several that come before it runs again the outermost counts: a cancellation before a limit of time,
        and a wider limit before one within.
        """
        if self._done:
            return False
        if self._interruption is None or _depth(reason) < _depth(self._interruption):
            self._interruption = reason
        if self._waits_for is not None:
            self._waits_for.remove_done_callback(self._woken)
            self._waits_for = None
            self.loop.call_soon(self._step)
        return True

    def _woken(self, by: Future[Any]) -> None:
        # An interruption may have come between the end of what it waited for and this.
        if by is self._waits_for:
            self._waits_for = None
            self._step()

    def _step(self) -> None:
        """Run the coroutine to where it waits next."""
        interruption, self._interruption = self._interruption, None
        before, self.loop.task = self.loop.task, self
        try:
            if interruption is None:
                waits_for = self._coroutine.send(None)
            else:
                waits_for = self._coroutine.throw(interruption)
        except StopIteration as end:
            self.set_result(end.value)
        except Cancelled:
            super().cancel()
        except Exception as error:  # it belongs to whoever awaits the task
            self.set_exception(error)
        except BaseException as error:
            self.set_exception(error)
            self._seen = True
            raise
        else:
            self._wait_for(waits_for)
        finally:
            self.loop.task = before

    def _wait_for(self, what: Any) -> None:
        if what is None or self._interruption is not None:
            self.loop.call_soon(self._step)
        elif isinstance(what, Future):
            self._waits_for = what
            what.add_done_callback(self._woken)
        else:
            self._interruption = TypeError(f"{what!r} is nothing that a task of this loop can wait for")
            self.loop.call_soon(self._step)

    def _settle(self, result: T | None, error: BaseException | None) -> None:
        super()._settle(result, error)
        self.loop.tasks.discard(self)

    def __del__(self) -> None:
        if self._done and self._error is not None and not self._seen and not self.cancelled():
            self.loop.unforeseen(f"{self!r} failed, and nobody asked for it", self._error)


def _depth(interruption: BaseException) -> int:
    return interruption.depth if isinstance(interruption, Interruption) else -1
