# SPDX-License-Identifier: LGPL-2.1-or-later
"""Raw clients of a bus, cheaper than what they measure: one marshalled call, sent again and again."""

from __future__ import annotations

import selectors
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from dbus_next.message import Message

_SERIAL = struct.Struct("<I")


class RawClient:
    """One connection of root that repeats one call; `took` has the seconds that each answer came after."""

    def __init__(self, path: str, call: Message) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.socket.sendall(b"\0AUTH EXTERNAL 30\r\n")
        assert self.socket.recv(200).startswith(b"OK")
        self.socket.sendall(b"BEGIN\r\n")
        self.failed = 0
        self.sent = 0
        self.took: list[float] = []
        self._left = b""
        self._waiting: dict[int, float] = {}
        self._call = self._marshal(Message("org.freedesktop.DBus", "/", "org.freedesktop.DBus", "Hello"))
        self.call()
        while not self.answered():
            pass
        self.took.clear()
        self.sent = 0
        self._call = self._marshal(call)

    def call(self, count: int = 1) -> None:
        """Send the call so many times."""
        data = bytearray()
        now = time.perf_counter()
        for _ in range(count):
            self.sent += 1
            # Hello has taken the first serial.
            serial = self.sent + 1
            _SERIAL.pack_into(self._call, 8, serial)
            self._waiting[serial] = now
            data += self._call
        self.socket.sendall(data)

    def answered(self) -> int:
        """Read once; how many calls were answered. Errors count, and are noted."""
        data = self.socket.recv(1 << 16)
        if not data:
            raise ConnectionError("the bus has hung up")
        self._left += data
        before = len(self._waiting)
        position = 0
        now = time.perf_counter()
        while len(self._left) - position >= 16:
            order = "<" if self._left[position] == ord("l") else ">"
            body, _, fields = struct.unpack_from(order + "III", self._left, position + 4)
            size = 16 + (fields + 7) // 8 * 8 + body
            if len(self._left) - position < size:
                break
            kind = self._left[position + 1]  # 2: METHOD_RETURN, 3: ERROR, 4: SIGNAL (NameAcquired)
            if kind in (2, 3):
                self.failed += kind == 3
                self.took.append(now - self._waiting.pop(self._answers(position, order, fields)))
            position += size
        self._left = self._left[position:]
        return before - len(self._waiting)

    def _answers(self, position: int, order: str, fields: int) -> int:
        """The serial in the header field REPLY_SERIAL of the message at `position`."""
        where = position + 16
        end = where + fields
        while where < end:
            code, kind = self._left[where], self._left[where + 2]
            value = where + 4
            (number,) = struct.unpack_from(order + "I", self._left, value)
            if code == 5:
                return int(number)
            # o and s have four bytes of length and a NUL behind them, g one, u none.
            after = {ord("u"): value + 4, ord("g"): value + self._left[value] + 2}.get(
                kind, value + number + 5
            )
            where = position + (after - position + 7) // 8 * 8
        raise RuntimeError("a reply that does not say to what")

    def _marshal(self, message: Message) -> bytearray:
        message.serial = 1
        return bytearray(message._marshall())  # type: ignore[no-untyped-call]


@contextmanager
def _connected(path: str, call: Message, clients: int) -> Iterator[Sequence[RawClient]]:
    with ExitStack() as stack:
        raw = []
        for _ in range(clients):
            raw.append(RawClient(path, call))
            stack.callback(raw[-1].socket.close)
        yield raw


@dataclass(frozen=True, slots=True)
class Rate:
    """Calls answered in a second, and the time in microseconds that 99 of 100 took at most."""

    per_second: float
    p99: float


def calls_per_second(path: str, call: Message, clients: int, seconds: float) -> Rate:
    """What so many clients get, each of which waits for its answer. RuntimeError: an error was answered."""
    with _connected(path, call, clients) as raw, selectors.DefaultSelector() as selector:
        for one in raw:
            selector.register(one.socket, selectors.EVENT_READ, one)
            one.call()
        begin = time.perf_counter()
        while (now := time.perf_counter()) - begin < seconds:
            for key, _ in selector.select(1.0):
                if key.data.answered():
                    key.data.call()
        if any(one.failed for one in raw):
            raise RuntimeError("a call was answered with an error")
        took = sorted(each for one in raw for each in one.took)
        return Rate(len(took) / (now - begin), took[len(took) * 99 // 100] * 1e6)


def crowd(path: str, call: Message, *, clients: int, in_flight: int, total: int) -> list[float]:
    """Seconds that each of `total` calls took, of clients with so many under way each.

    RuntimeError: an error was answered, or a call was not within 60 s.
    """
    with _connected(path, call, clients) as raw, selectors.DefaultSelector() as selector:
        left = total
        for one in raw:
            selector.register(one.socket, selectors.EVENT_READ, one)
            first = min(in_flight, left)
            left -= first
            if first:
                one.call(first)
        while sum(len(one.took) for one in raw) < total:
            ready = selector.select(60.0)
            if not ready:
                raise RuntimeError("calls were lost")
            for key, _ in ready:
                more = min(key.data.answered(), left)
                left -= more
                if more:
                    key.data.call(more)
        if any(one.failed for one in raw):
            raise RuntimeError("a call was answered with an error")
        return [each for one in raw for each in one.took]
