# SPDX-License-Identifier: LGPL-2.1-or-later
"""The other end of one connection: a bus that sends what no real bus would let pass."""

from __future__ import annotations

import array
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from struct import pack, unpack_from

from nestd import tasks
from nestd.bus.connection import Connection
from nestd.wire import message
from nestd.wire.frame import MESSAGE_LIMIT, Framer

_SECONDS = 20.0


class FakeBus:
    """Speaks the real protocol with one client, which it calls :1.0. Waits end after 20 s."""

    def __init__(self, folder: Path) -> None:
        self.address = f"unix:path={folder}/bus"
        self.client = socket.socket()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"{folder}/bus")
        self._listener.listen()
        self._framer = Framer(MESSAGE_LIMIT)

    def accept(self) -> None:
        """Take the connection as far as the answer to Hello."""
        self.client.close()
        self._listener.settimeout(_SECONDS)
        self.client, _ = self._listener.accept()
        self.client.settimeout(_SECONDS)
        greeting = b""
        while b"BEGIN\r\n" not in greeting:
            greeting += self.client.recv(4096)
        self.client.sendall(b"OK 00\r\nAGREE_UNIX_FD\r\n")
        hello = self.receive().header
        self.send("org.freedesktop.DBus", message.reply(1, hello, "s", [":1.0"]))

    def close(self) -> None:
        """Hang up."""
        self.client.close()
        self._listener.close()

    def send(self, sender: str, data: bytes, fds: Sequence[int] = ()) -> None:
        """Deliver a message as that sender's."""
        self.raw(stamped(sender, data), fds)

    def raw(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Deliver these bytes."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sent = self.client.sendmsg([data], rights)
        if sent < len(data):
            self.client.sendall(data[sent:])

    def receive(self) -> message.Message:
        """The client's next message."""
        while (frame := self._framer.next()) is None:
            data = self.client.recv(1 << 16)
            if not data:
                raise ConnectionError("the client hung up")
            self._framer.feed(data)
        return message.parse(frame)


def stamped(sender: str, data: bytes) -> bytes:
    """A message with the sender that a bus would put in."""
    (length,) = unpack_from("<I", data, 12)
    body = data[-(-(16 + length) // 8) * 8 :]
    fields = data[16 : 16 + length] + bytes(-length % 8)
    raw = sender.encode()
    fields += pack("<BB1sxI", 7, 1, b"s", len(raw)) + raw + b"\0"
    return data[:12] + pack("<I", len(fields)) + fields + bytes(-len(fields) % 8) + body


@asynccontextmanager
async def faking(folder: Path) -> AsyncIterator[tuple[FakeBus, Connection]]:
    """A fake bus and a connection to it."""
    fake = FakeBus(folder)
    connecting = tasks.create_task(Connection.connect(fake.address))
    try:
        await tasks.to_thread(fake.accept)
        connection = await connecting
        try:
            yield fake, connection
        finally:
            await connection.close()
    finally:
        connecting.cancel()
        fake.close()
