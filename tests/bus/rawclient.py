# SPDX-License-Identifier: LGPL-2.1-or-later
"""A blocking client with a socket of its own, which sends whatever bytes it is told to."""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from nestd import tasks
from nestd.wire import message, sasl
from nestd.wire.frame import MESSAGE_LIMIT, Framer
from nestd.wire.header import Flag, Kind

BUS = "org.freedesktop.DBus"
_SECONDS = 20.0


class RawClient:
    """Connects as this process's user. Every wait ends after 20 s with TimeoutError."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(_SECONDS)
        self.socket.connect(address.removeprefix("unix:path="))
        self.fds: list[int] = []
        self._framer = Framer(MESSAGE_LIMIT)
        self._serial = 0
        self.socket.sendall(sasl.hello(os.getuid()))
        data = b""
        while (agreed := sasl.answer(data)) is None:
            data += self.socket.recv(4096)
        self._framer.feed(agreed.rest)
        self.unique_name = str(self.call(BUS, "/org/freedesktop/DBus", BUS, "Hello")[0])

    def __enter__(self) -> RawClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the bus."""
        for fd in self.fds:
            os.close(fd)
        self.fds.clear()
        self.socket.close()

    def serial(self) -> int:
        """The next serial."""
        self._serial += 1
        return self._serial

    def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send these bytes, with these descriptors."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sent = self.socket.sendmsg([data], rights)
        if sent < len(data):
            self.socket.sendall(data[sent:])

    def post(self, *arguments: Any, flags: Flag = Flag(0), fds: Sequence[int] = ()) -> int:  # noqa: B008
        """Send a call (arguments as for nestd.wire.message.call) and return its serial."""
        serial = self.serial()
        self.send(message.call(serial, *arguments, flags=flags, fds=len(fds)), fds)
        return serial

    def receive(self) -> message.Message:
        """The next message."""
        while (frame := self._framer.next()) is None:
            data, ancillary, _, _ = self.socket.recvmsg(1 << 16, 4096, socket.MSG_CMSG_CLOEXEC)
            for _, _, raw in ancillary:
                self.fds += array.array("i", raw)
            if not data:
                raise ConnectionError("the bus closed the connection")
            self._framer.feed(data)
        return message.parse(frame)

    def answer(self, serial: int) -> message.Message:
        """The reply to that serial; everything before it is dropped."""
        while (received := self.receive()).header.reply_serial != serial:
            pass
        return received

    def signal(self, member: str) -> message.Message:
        """The next signal of that name; everything before it is dropped."""
        while (received := self.receive()).header.member != member or received.header.kind != Kind.SIGNAL:
            pass
        return received

    def call(self, *arguments: Any, flags: Flag = Flag(0)) -> list[Any]:  # noqa: B008
        """Call and wait. An error is raised as BusReplyError."""
        received = self.answer(self.post(*arguments, flags=flags))
        values = received.values(1 << 20)
        if received.header.kind == Kind.ERROR:
            raise BusReplyError(received.header.error_name, values[0] if values else "")
        return values

    async def ask(self, *arguments: Any, flags: Flag = Flag(0)) -> list[Any]:  # noqa: B008
        """`call` in a thread, so that a service in this process can answer."""
        return await tasks.to_thread(lambda: self.call(*arguments, flags=flags))


class BusReplyError(Exception):
    """An error reply: `name` and `text`."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name
        self.text = text
