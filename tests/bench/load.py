# SPDX-License-Identifier: LGPL-2.1-or-later
"""Raw clients of a bus, cheaper than what they measure: one marshalled call, sent again and again."""

from __future__ import annotations

import selectors
import socket
import struct
import time
from collections.abc import Sequence

from dbus_next.message import Message

_SERIAL = struct.Struct("<I")


class RawClient:
    """One connection of root that repeats one call, the next when the last is answered."""

    def __init__(self, path: str, call: Message) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.socket.sendall(b"\0AUTH EXTERNAL 30\r\n")
        assert self.socket.recv(200).startswith(b"OK")
        self.socket.sendall(b"BEGIN\r\n")
        self._serial = 1
        self._left = b""
        self.failed = False
        self._send(Message("org.freedesktop.DBus", "/", "org.freedesktop.DBus", "Hello"))
        while not self.answered():
            pass
        call.serial = 1
        self._call = bytearray(call._marshall())  # type: ignore[no-untyped-call]

    def call(self) -> None:
        """Send the call."""
        self._serial += 1
        _SERIAL.pack_into(self._call, 8, self._serial)
        self.socket.sendall(self._call)

    def answered(self) -> bool:
        """Read once; whether the answer to the last call is among what came. Errors count, and are noted."""
        self._left += self.socket.recv(1 << 16)
        found = False
        while len(self._left) >= 16:
            order = "<" if self._left[:1] == b"l" else ">"
            body, _, fields = struct.unpack_from(order + "III", self._left, 4)
            size = 16 + (fields + 7) // 8 * 8 + body
            if len(self._left) < size:
                break
            kind = self._left[1]  # 2: METHOD_RETURN, 3: ERROR, 4: SIGNAL (NameAcquired)
            self.failed = self.failed or kind == 3
            found = found or kind in (2, 3)
            self._left = self._left[size:]
        return found

    def _send(self, message: Message) -> None:
        message.serial = self._serial
        self.socket.sendall(message._marshall())  # type: ignore[no-untyped-call]


def calls_per_second(path: str, call: Message, clients: int, seconds: float) -> float:
    """How many calls are answered in a second, with so many clients each of which waits for its answer."""
    raw = [RawClient(path, call) for _ in range(clients)]
    try:
        return _run(raw, seconds)
    finally:
        for one in raw:
            one.socket.close()


def _run(raw: Sequence[RawClient], seconds: float) -> float:
    count = 0
    with selectors.DefaultSelector() as selector:
        for one in raw:
            selector.register(one.socket, selectors.EVENT_READ, one)
            one.call()
        begin = time.perf_counter()
        while (now := time.perf_counter()) - begin < seconds:
            for key, _ in selector.select(1.0):
                one = key.data
                if one.answered():
                    count += 1
                    one.call()
    if any(one.failed for one in raw):
        raise RuntimeError("a call was answered with an error")
    return count / (now - begin)
