# SPDX-License-Identifier: LGPL-2.1-or-later
"""The person's terminal, lent to a guest: every key passes, and it is given back, whatever happens."""

from __future__ import annotations

import os
import signal
import termios
import tty
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

# What ends this process without asking, and leaves a terminal as it is: each is caught while it is lent.
_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
# What a guest's programs may have left on, put back without clearing the screen: a soft reset (DECSTR of the
# VT220: colours, cursor, margins; which turns line wrapping off, too), then wrapping on, and mouse, focus and
# paste off.
_RESET = b"\x1b[!p\x1b[?7h\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1004l\x1b[?2004l"


def lend(terminal: int, work: Callable[[], T]) -> T:
    """Do `work` while the terminal passes every key; KeyboardInterrupt or SystemExit where a signal ended it.

    The first of these signals is raised in `work`; from then on nothing interrupts the giving back. A process
    that is stopped (SIGTSTP) has given it back, and has it again when it goes on.
    """
    before = termios.tcgetattr(terminal)
    loan = _Loan(terminal, before)
    try:
        try:
            loan.begin()
            return work()
        finally:
            loan.over()
    finally:
        loan.give_back()


def reset(sink: int, term: str) -> None:
    """Undo what a guest's output may have done to the terminal `sink`, of the type `term`."""
    if term not in ("", "dumb") and os.isatty(sink):
        with suppress(OSError):  # it may be gone
            os.write(sink, _RESET)


class _Loan:
    def __init__(self, terminal: int, before: list[Any]) -> None:
        self._terminal = terminal
        self._before = before
        self._handlers: dict[int, Any] = {}
        self._lent = False

    def begin(self) -> None:
        self._lent = True
        for number in _ENDING:
            self._handlers[number] = signal.signal(number, self._end)
        self._handlers[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, self._stop)
        self._handlers[signal.SIGCONT] = signal.signal(signal.SIGCONT, self._go_on)
        tty.setraw(self._terminal)

    def over(self) -> None:
        self._lent = False

    def give_back(self) -> None:
        self._restore()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _restore(self) -> None:
        with suppress(termios.error):  # the terminal itself may be gone
            termios.tcsetattr(self._terminal, termios.TCSANOW, self._before)

    def _end(self, number: int, _: FrameType | None) -> None:
        if self._lent:
            self._lent = False  # one is enough: the next would interrupt the giving back
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            raise SystemExit(128 + number)

    def _stop(self, _: int, __: FrameType | None) -> None:
        self._restore()
        os.kill(os.getpid(), signal.SIGSTOP)

    def _go_on(self, _: int, __: FrameType | None) -> None:
        if self._lent:
            with suppress(termios.error):
                tty.setraw(self._terminal)
