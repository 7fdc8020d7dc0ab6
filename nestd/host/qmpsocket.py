# SPDX-License-Identifier: LGPL-2.1-or-later
"""Connections to a guest's sockets, which belong to a user who may wish the daemon ill.

The socket's folder is the user's own: by the time it is opened, the name may be a symbolic link to another
program's socket, a FIFO, or a socket somebody else listens on. So the name is opened without following links
and without side effects (O_PATH), judged by what was opened, connected to through that very descriptor
(/proc/self/fd, proc(5)), and the listener is asked for its uid (SO_PEERCRED, unix(7)).
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from nestd import sockets, tasks
from nestd.errors import Malformed, NestdError
from nestd.text import qmp

_LINE_LIMIT = 1 << 20
# A line is an event, a greeting or an answer; a peer that only ever sends events is no QEMU.
_LINES_PER_EXCHANGE = 1000
_UCRED = struct.Struct("3i")


class NotTheGuest(NestdError):
    """What was found there is not a socket of the guest's user."""


class QmpRefused(NestdError):
    """QEMU answered a command with an error."""


def connect(path: str, uid: int) -> socket.socket:
    """Connect, non-blocking, to the unix socket at `path`, which `uid` owns and listens on.

    FileNotFoundError, ConnectionRefusedError: nobody listens (yet). BlockingIOError: the
    queue is full, as others are connected. NotTheGuest; OSError.
    """
    place = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(place)
        if not stat.S_ISSOCK(found.st_mode) or found.st_uid != uid:
            raise NotTheGuest(f"{path} is not a socket of uid {uid}")
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            connection.setblocking(False)
            connection.connect(f"/proc/self/fd/{place}")
            _, peer, _ = _UCRED.unpack(
                connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
            )
            if peer != uid:
                raise NotTheGuest(f"{path} is served by uid {peer}, not by uid {uid}")
        except BaseException:
            connection.close()
            raise
        return connection
    finally:
        os.close(place)


class QmpSocket:
    """A QMP session: `async with QmpSocket(connect(...)) as qmp: ...`. Owns `connection`."""

    def __init__(self, connection: socket.socket, limit: float = 5.0) -> None:
        self._connection = connection
        self._limit = limit
        self._buffer = bytearray()
        self._number = 0

    async def execute(
        self, command: str, arguments: Mapping[str, object] | None = None, descriptor: int | None = None
    ) -> Any:
        """Run a command; returns its answer, a JSON value of any shape. QEMU gets a copy of `descriptor`.

        TimeoutError after the limit (seconds), QmpRefused, Malformed, OSError (the peer is gone).
        """
        self._number += 1
        async with tasks.timeout(self._limit):
            line = qmp.encode(command, self._number, arguments)
            if descriptor is None:
                await sockets.send(self._connection, line)
            else:
                await sockets.send_with(self._connection, line, descriptor)
            for _ in range(_LINES_PER_EXCHANGE):
                message = qmp.decode(await self._line())
                if isinstance(message, qmp.Refusal) and message.id in {self._number, None}:
                    raise QmpRefused(f"{command}: {message.words}")
                if isinstance(message, qmp.Reply) and message.id == self._number:
                    return message.value
                await tasks.sleep(0)  # the next line may be there already, and a thousand more: others first
        raise Malformed(f"QMP: no answer to {command} among {_LINES_PER_EXCHANGE} lines")

    async def __aenter__(self) -> QmpSocket:
        try:
            async with tasks.timeout(self._limit):
                if not isinstance(qmp.decode(await self._line()), qmp.Greeting):
                    raise Malformed("QMP: no greeting")
            await self.execute("qmp_capabilities")
        except BaseException:
            self._connection.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    async def _line(self) -> bytes:
        seen = 0
        while (end := self._buffer.find(b"\n", seen)) < 0:
            seen = len(self._buffer)
            if seen > _LINE_LIMIT:
                raise Malformed("QMP: a line without an end")
            piece = await sockets.receive(self._connection, 1 << 16)
            if not piece:
                raise ConnectionResetError(errno.ECONNRESET, "QEMU closed its monitor")
            self._buffer += piece
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line
