# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where nestctl's words go: results to standard output, complaints and progress to standard error."""

from __future__ import annotations

import os
import re
import select
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

from .failures import Unwritable
from .style import style_for
from .table import lines, width

_PATIENCE = 0.3  # seconds in which nobody wonders
_FRAMES = "|/-\\"
_COLUMNS = 80  # of a terminal that does not say
_CUT = "..."
_REMEDY = re.compile(r"([.?]) (?=[A-Z`])")  # errors say what and why, then what to do, in sentences


class Screen:
    """Standard output and standard error, either of which may be closed, a pipe, or a terminal."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.style = style_for(sys.stdout, environment)
        self._error_style = style_for(sys.stderr, environment)
        self.terminal = sys.stderr is not None and sys.stderr.isatty()
        self.quiet = False  # a password may be asked for, which a line of progress would write over

    def say(self, text: str) -> None:
        """Write a result. BrokenPipeError: nobody reads on; Unwritable: it failed otherwise."""
        if sys.stdout is None:
            raise Unwritable("cannot write the output: standard output is closed")
        try:
            _write(sys.stdout, text)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise Unwritable(f"cannot write the output: {error.strerror}") from None

    def json(self, values: object) -> None:
        """Write a result as JSON: one document, ASCII only; byte arrays as lists of numbers."""
        import json  # noqa: PLC0415 - most calls do not need it, and starting is most of what they cost

        self.say(json.dumps(values, indent=2, default=list) + "\n")

    def hint(self, text: str) -> None:
        """Tell a person at a terminal something that is no result."""
        if self.terminal:
            _write(sys.stderr, f"{self._error_style.dim(text)}\n")

    def complain(self, text: str, name: str = "") -> None:
        """Say what went wrong, on the next line what to do; `name` is the error's short name on the bus."""
        if sys.stderr is None:
            return
        style = self._error_style
        what, behind, todo = lines(_REMEDY.sub(r"\1\n", text, count=1)).partition("\n")
        name = f" {style.dim(f'[{lines(name)}]')}" if name else ""
        _write(sys.stderr, f"{style.bad(f'nestctl: {what}')}{behind}{todo}{name}\n")

    @contextmanager
    def progress(self, what: str | Callable[[], str]) -> Iterator[Callable[[], None]]:
        """Show that something runs: gives a function to call now and then. Silent without a terminal.

        `what` says it in words, or gives those of the moment (empty: nothing is shown), also while `quiet`.
        What does not fit the line is cut.
        """
        begun = time.monotonic()
        shown = False

        def tick() -> None:
            nonlocal shown
            elapsed = time.monotonic() - begun
            words = ("" if self.quiet else what) if isinstance(what, str) else what()
            if self.terminal and words and elapsed > _PATIENCE:
                shown = True
                frame = _FRAMES[int(elapsed * 8) % len(_FRAMES)]
                behind = f" ({elapsed:.0f} s)"
                _write(sys.stderr, f"\r{frame} {_cut(words, len(behind) + 3)}{behind}\x1b[K")

        try:
            yield tick
        finally:
            if shown:
                _write(sys.stderr, "\r\x1b[K")


def _cut(words: str, taken: int) -> str:
    """The words, as far as they fit beside `taken` columns: a line that wraps could not be written over."""
    columns = os.get_terminal_size(sys.stderr.fileno()).columns or _COLUMNS
    room = max(columns - taken, len(_CUT))
    if width(words) <= room:
        return words
    while width(words) > room - len(_CUT):
        words = words[:-1]
    return words + _CUT


def _write(stream: TextIO, text: str) -> None:
    # Past the stream's buffer: what could not be written is known here, not when the interpreter ends.
    write(stream.fileno(), text.encode(stream.encoding, "backslashreplace"))


def write(descriptor: int, data: bytes) -> None:
    """Write all of it, whether the descriptor waits or not."""
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:  # ssh has our standard error not wait, which may be the output, too
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll()
