# SPDX-License-Identifier: LGPL-2.1-or-later
"""The guest's serial console on this terminal: bytes through, in both directions.

A serial line carries no size of a window: the guest has the one that it was told there (stty(1)), or asks the
terminal itself (resize(1), systemd), whose answer passes as every other key does. So nothing is sent when the
window changes.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import sys
import termios
import time

from . import replay
from .failures import Unwritable
from .screen import write
from .terminal import lend, reset

ESCAPE = b"\x1d"  # Ctrl-], as in telnet and virsh
_PIECE = 65536
_LOG = 1 << 20  # bytes that are kept of what a guest said (org.nestd1(5), GetConsoleLog)
_GAP = b"\r\n\x1b[0m[nestd keeps the first MiB of what is said here: what came after it is missing]\r\n"
_PARTING = 0.5  # seconds that the guest has to read what was typed before the escape key


def attach(descriptor: int, said: bytes, escape: bytes = ESCAPE) -> bool:
    """Connect this process's standard input and output with a console until one of them ends.

    `descriptor` is a stream socket, which is closed here; `said` is shown first. On a terminal the key
    `escape` leaves, and whatever ends the console, the terminal is as it was before. Without a
    terminal the end of the input leaves the output running until the guest closes it: QEMU takes a
    half-closed socket for a client that has gone. Where `said` is all that can be kept, a line on the
    terminal tells of the gap behind it. Returns whether the escape key was typed.
    """
    with socket.socket(fileno=descriptor) as guest:
        if sys.stdout is None:
            raise Unwritable("standard output is closed, so there is nowhere to show the console")
        guest.setblocking(False)
        source = None if sys.stdin is None else sys.stdin.fileno()
        sink = sys.stdout.fileno()
        try:
            if os.isatty(sink):
                said = replay.quiet(said) + (_GAP if len(said) >= _LOG else b"")
            write(sink, said)
            if source is None or not os.isatty(source):
                return _proxy(guest, source, sink, b"")
            return lend(source, lambda: _proxy(guest, source, sink, escape))
        finally:
            reset(sink, os.environ.get("TERM", ""))


def _proxy(guest: socket.socket, source: int | None, sink: int, escape: bytes) -> bool:
    poll = select.poll()
    # For no event but the one that always comes: nobody reads on, which a guest that is silent would hide.
    poll.register(sink, 0)
    typed = b""
    while True:
        poll.register(guest, select.POLLIN | (select.POLLOUT if typed else 0))
        if source is not None:
            # While the guest takes no more, its input waits in the terminal or the pipe; only the
            # escape key has to get through.
            poll.register(source, select.POLLIN if escape or not typed else 0)
        ready = dict(poll.poll())
        if sink in ready:
            raise BrokenPipeError
        happened = ready.get(guest.fileno(), 0)
        if happened & select.POLLOUT and typed:
            typed = typed[_some(guest, typed) :]
        if happened & ~select.POLLOUT:
            shown = _received(guest)
            if shown == b"":
                return False
            write(sink, shown or b"")
        if source is not None and ready.get(source):
            piece = os.read(source, _PIECE)
            if escape and escape in piece:
                _part(guest, typed + piece[: piece.index(escape)])
                return True
            if piece:
                typed += piece
            elif escape:
                return False  # the terminal is gone
            else:
                poll.unregister(source)
                source = None


def _received(guest: socket.socket) -> bytes | None:
    """What the guest printed; empty at the end, None where it was a false alarm."""
    try:
        return guest.recv(_PIECE)
    except BlockingIOError:
        return None
    except ConnectionResetError:
        return b""


def _some(guest: socket.socket, typed: bytes) -> int:
    """How many bytes the guest took. One that has gone takes them all: reading will tell."""
    try:
        return guest.send(typed, socket.MSG_NOSIGNAL)
    except BlockingIOError:
        return 0
    except (BrokenPipeError, ConnectionResetError):
        return len(typed)


def _part(guest: socket.socket, typed: bytes) -> None:
    """Give the guest what was typed last. What it has not read when its client leaves, QEMU forgets."""
    until = time.monotonic() + _PARTING
    while (typed or _unread(guest)) and time.monotonic() < until:
        typed = typed[_some(guest, typed) :] if typed else b""
        time.sleep(0.01)


def _unread(guest: socket.socket) -> int:
    """What was sent and not yet read, in bytes of the kernel's memory (unix(7), SIOCOUTQ)."""
    count: int
    (count,) = struct.unpack("i", fcntl.ioctl(guest, termios.TIOCOUTQ, bytes(4)))
    return count
