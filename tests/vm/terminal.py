# SPDX-License-Identifier: LGPL-2.1-or-later
"""Joins a person's terminal with the machine's."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from types import FrameType

_LEAVE = b"\x1d"  # Ctrl-], as telnet and virsh have it
_LOGOUT = b"\x1b]nestd;logout\x07"  # baked/bash_logout


def attach(wire: socket.socket, resize: Callable[[int, int], None]) -> None:
    """Pass bytes both ways until Ctrl-], the shell's logout, the end of the input, or of the machine.

    `resize` is told the terminal's rows and columns, first and whenever they change.
    """
    incoming, outgoing = sys.stdin.fileno(), sys.stdout.fileno()
    sys.stdout.flush()
    _drop_old(wire)
    with _raw(incoming), _told_size(outgoing, resize):
        wire.sendall(b"\n")  # the prompt was printed before the snapshot was taken
        said = b""
        while True:
            readable, _, _ = select.select([incoming, wire], [], [])
            if wire in readable:
                piece = _received(wire)
                said = (said + piece)[-64 - len(piece) :]
                _write(outgoing, piece.replace(_LOGOUT, b""))
                if not piece or _LOGOUT in said:
                    return
            if incoming in readable:
                typed = os.read(incoming, 4096)
                if not typed or _LEAVE in typed:
                    return
                wire.sendall(typed)


def _received(wire: socket.socket) -> bytes:
    try:
        return wire.recv(65536)
    except OSError:
        return b""


def _drop_old(wire: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        while wire.recv(65536, socket.MSG_DONTWAIT):
            pass


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


@contextlib.contextmanager
def _raw(fd: int) -> Iterator[None]:
    if not os.isatty(fd):
        yield
        return
    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _told_size(fd: int, resize: Callable[[int, int], None]) -> Iterator[None]:
    if not os.isatty(fd):
        yield
        return

    def tell(_signal: int = 0, _frame: FrameType | None = None) -> None:
        size = os.get_terminal_size(fd)
        resize(size.lines, size.columns)

    tell()
    before = signal.signal(signal.SIGWINCH, tell)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
