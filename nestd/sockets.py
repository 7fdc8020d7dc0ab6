# SPDX-License-Identifier: LGPL-2.1-or-later
"""Non-blocking unix stream sockets, awaited. Each is used by one task at a time."""

from __future__ import annotations

import socket
from collections.abc import Callable

from nestd.loop import running
from nestd.tasks import Event, sleep

_PAUSE = 0.02


async def connect(sock: socket.socket, path: str) -> None:
    """Connect. Raises OSError. While the listener's queue is full it is tried again (connect(2): EAGAIN)."""
    while True:
        try:
            sock.connect(path)
        except BlockingIOError:
            await sleep(_PAUSE)
        else:
            return


async def receive(sock: socket.socket, size: int) -> bytes:
    """At most `size` bytes; none at the end of the stream. Raises OSError."""
    loop = running()
    while True:
        try:
            return sock.recv(size)
        except BlockingIOError:
            await _ready(sock.fileno(), loop.add_reader, loop.remove_reader)


async def send(sock: socket.socket, data: bytes) -> None:
    """Send all of it. Raises OSError."""
    loop = running()
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[sock.send(rest) :]
        except BlockingIOError:
            await _ready(sock.fileno(), loop.add_writer, loop.remove_writer)


async def send_with(sock: socket.socket, data: bytes, descriptor: int) -> None:
    """Send all of it, with a copy of `descriptor` (SCM_RIGHTS, unix(7)). Raises OSError."""
    loop = running()
    while True:
        try:
            sent = socket.send_fds(sock, [data], [descriptor])
        except BlockingIOError:
            await _ready(sock.fileno(), loop.add_writer, loop.remove_writer)
        else:
            break
    await send(sock, data[sent:])


async def _ready(fd: int, add: Callable[..., None], remove: Callable[[int], None]) -> None:
    ready = Event()
    add(fd, ready.set)
    try:
        await ready.wait()
    finally:
        remove(fd)
