# SPDX-License-Identifier: LGPL-2.1-or-later
"""The event loop: descriptors that are ready, timers that are due, signals that came; nothing else.

Where a name is asyncio's, so is its meaning. nestd/tasks.py has what coroutines need. A turn waits for
descriptors, then runs what is ready: first the descriptors' callbacks, then the timers' and those
that were queued before the turn began. What they queue comes after the next look at the descriptors. A
loop with nothing to do sleeps until something comes.
"""

from __future__ import annotations

import os
import select
import signal
from bisect import insort
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nestd.tasks import Task

_EVENTS = 64  # descriptors that are told in one turn; the others come in the next

Unforeseen = Callable[[str, BaseException], None]


class Cancelled(BaseException):
    """Raised in a task where it waits, because somebody cancelled it. Not an Exception: it is no failure."""


class Handle:
    """A callback that was asked for. Cancelled, it is not called."""

    __slots__ = ("arguments", "callback")

    def __init__(self, callback: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        self.callback: Callable[..., object] | None = callback
        self.arguments = arguments

    def cancel(self) -> None:
        """Have it not called, unless it was already. Safe to call twice."""
        self.callback = None
        self.arguments = ()


class Timer(Handle):
    """A callback for later."""

    __slots__ = ("_timers", "when")

    def __init__(
        self, timers: list[Timer], when: float, callback: Callable[..., object], arguments: tuple[Any, ...]
    ) -> None:
        super().__init__(callback, arguments)
        self._timers = timers
        self.when = when

    def cancel(self) -> None:
        """As Handle's; it also leaves the loop's list, so that it wakes nobody."""
        if self in self._timers:
            self._timers.remove(self)
        super().cancel()

    def __lt__(self, other: Timer) -> bool:
        return self.when < other.when


class _Watch:
    """What is called for a descriptor."""

    __slots__ = ("reader", "writer")

    def __init__(self) -> None:
        self.reader: Handle | None = None
        self.writer: Handle | None = None


class Loop:
    """One thread's loop. What a callback raises goes to `unforeseen`, with what it was; the loop goes on."""

    def __init__(self, unforeseen: Unforeseen) -> None:
        self.unforeseen = unforeseen
        self.tasks: set[Task[Any]] = set()  # that are under way
        self.task: Task[Any] | None = None  # that runs just now
        self._epoll = select.epoll()
        self._watches: dict[int, _Watch] = {}
        self._ready: deque[Handle] = deque()
        self._timers: list[Timer] = []  # by time; few, so an ordered list is the simplest heap
        self._signals = _Signals(self)

    def call_soon(self, callback: Callable[..., object], *arguments: Any) -> Handle:
        """Have it called in the next turn, after what was asked for before."""
        handle = Handle(callback, arguments)
        self._ready.append(handle)
        return handle

    def call_later(self, delay: float, callback: Callable[..., object], *arguments: Any) -> Handle:
        """Have it called after `delay` seconds, never before; as call_soon where that is nothing."""
        if delay <= 0:
            return self.call_soon(callback, *arguments)
        timer = Timer(self._timers, monotonic() + delay, callback, arguments)
        insort(self._timers, timer)
        return timer

    def add_reader(self, fd: int, callback: Callable[..., object], *arguments: Any) -> None:
        """Have it called in each turn in which the descriptor can be read, or has failed or hung up.

        One for each descriptor: a second takes the place of the first. Remove it before closing the
        descriptor. Raises OSError: PermissionError for what cannot be waited for, such as a file.
        """
        watch = self._watches.get(fd) or _Watch()
        watch.reader = Handle(callback, arguments)
        self._ask(fd, watch)

    def remove_reader(self, fd: int) -> None:
        """Have it called no more, not in this turn either. One that is not there is fine."""
        watch = self._watches.get(fd)
        if watch is not None and watch.reader is not None:
            watch.reader = None
            self._ask(fd, watch)

    def add_writer(self, fd: int, callback: Callable[..., object], *arguments: Any) -> None:
        """As add_reader, for writing."""
        watch = self._watches.get(fd) or _Watch()
        watch.writer = Handle(callback, arguments)
        self._ask(fd, watch)

    def remove_writer(self, fd: int) -> None:
        """As remove_reader, for writing."""
        watch = self._watches.get(fd)
        if watch is not None and watch.writer is not None:
            watch.writer = None
            self._ask(fd, watch)

    def add_signal_handler(self, number: int, callback: Callable[[], object]) -> None:
        """Have it called on the loop after a signal. ValueError: this is not the main thread."""
        self._signals.add(number, callback)

    def run_until(self, over: Callable[[], bool]) -> None:
        """Turn until `over` says so, which is asked between turns."""
        while not over():
            self.turn()

    def turn(self) -> None:
        """Wait until something is ready, and run it. KeyboardInterrupt and SystemExit get out."""
        wait: float | None = None
        if self._ready:
            wait = 0
        elif self._timers:
            wait = max(0, self._timers[0].when - monotonic())
        # Looked up before any is called: one that is removed and made anew meanwhile is another.
        events = [(self._watches.get(fd), mask) for fd, mask in self._epoll.poll(wait, _EVENTS)]
        for watch, mask in events:
            if watch is None:
                continue
            if watch.reader is not None and mask & ~select.EPOLLOUT:
                self._call(watch.reader)
            if watch.writer is not None and mask & ~select.EPOLLIN:
                self._call(watch.writer)
        now = monotonic() if self._timers else 0
        while self._timers and self._timers[0].when <= now:
            self._ready.append(self._timers.pop(0))
        for _ in range(len(self._ready)):
            self._call(self._ready.popleft())

    def close(self) -> None:
        """Give back the loop's own descriptors and the signals; nothing is called any more."""
        self._signals.close()
        self._ready.clear()
        self._timers.clear()
        self._watches.clear()
        self._epoll.close()

    def _call(self, handle: Handle) -> None:
        if handle.callback is None:
            return
        try:
            handle.callback(*handle.arguments)
        except (Exception, Cancelled) as error:  # whatever is wrong with one callback, the others are called
            self.unforeseen("a callback of the loop failed", error)

    def _ask(self, fd: int, watch: _Watch) -> None:
        """Tell epoll what is wanted of a descriptor now."""
        mask = (select.EPOLLIN if watch.reader else 0) | (select.EPOLLOUT if watch.writer else 0)
        if not mask:
            del self._watches[fd]
            with suppress(OSError):  # it was closed before, so the kernel knows it no more
                self._epoll.unregister(fd)
            return
        try:
            self._epoll.modify(fd, mask)
        except FileNotFoundError:
            self._epoll.register(fd, mask)
        self._watches[fd] = watch


class _Signals:
    """Signals as bytes in a pipe (signal.set_wakeup_fd), which the loop reads."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._pipe: tuple[int, int] | None = None
        self._callbacks: dict[int, Callable[[], object]] = {}
        self._before: dict[int, Any] = {}

    def add(self, number: int, callback: Callable[[], object]) -> None:
        if self._pipe is None:
            pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            self._loop.add_reader(pipe[0], self._read, pipe[0])
            self._pipe = pipe
        signal.set_wakeup_fd(self._pipe[1])
        self._callbacks[number] = callback
        self._before.setdefault(number, signal.signal(number, _nothing))

    def close(self) -> None:
        if self._pipe is None:
            return
        signal.set_wakeup_fd(-1)
        for number, before in self._before.items():
            signal.signal(number, before)
        self._loop.remove_reader(self._pipe[0])
        for fd in self._pipe:
            os.close(fd)
        self._pipe = None

    def _read(self, pipe: int) -> None:
        for number in os.read(pipe, 4096):
            if number in self._callbacks:
                self._loop.call_soon(self._callbacks[number])


RUNNING: ContextVar[Loop | None] = ContextVar("nestd's running loop", default=None)


def running() -> Loop:
    """The loop that runs in this thread. RuntimeError: none does."""
    loop = RUNNING.get()
    if loop is None:
        raise RuntimeError("no event loop runs here")
    return loop


def _nothing(_: int, __: FrameType | None) -> None:
    """A signal that has a handler is written to the pipe, and interrupts what waits."""
