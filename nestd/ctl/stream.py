# SPDX-License-Identifier: LGPL-2.1-or-later
"""The connection to a message bus: a unix socket, waited for with a deadline, and what it carries."""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections.abc import Callable, Mapping

from nestd.errors import Malformed
from nestd.wire import address, message, sasl
from nestd.wire.frame import MESSAGE_LIMIT, Framer

from .failures import Unreachable

TYPE_CHECKING = False  # as typing has it, which costs time to load
if TYPE_CHECKING:
    from .bridge import Bridge

_PIECE = 65536
_DESCRIPTORS = 16  # as many as the system bus lets one message carry
_TICK = 0.1  # seconds between two calls of `waiting`
_LATE = "no answer came in time; see what nestd does: systemctl status nestd"
_LONGEST = 3600.0  # seconds of one poll(2), which cannot wait without end as a deadline can


class Stream:
    """A socket to a bus that has let us in, and the messages and descriptors that come out of it.

    `bus` is `system`, `session`, a D-Bus address, or a process that leads to one, which is ended with the
    stream. A deadline is a value of time.monotonic(), or infinite. `descriptors`: the bus can carry them.
    Every method raises Unreachable where the bus is not there, breaks off, or says nothing in time.
    """

    def __init__(self, bus: str | Bridge, environment: Mapping[str, str], deadline: float) -> None:
        self._framer = Framer(MESSAGE_LIMIT)
        self._descriptors: list[int] = []
        self._reader = -1
        self._late = _LATE
        self._bridge = None if isinstance(bus, str) else bus
        if isinstance(bus, str):
            self._bus = f"the {bus} bus" if bus in ("system", "session") else "the bus"
            self._socket = self._connect(bus, environment)
        else:
            self._bus, self._socket = bus.place, bus.socket
            self._late = f"{bus.place}: {_LATE}"  # its nestd, not the one of this machine
        try:
            self._authenticate(deadline)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Leave the bus."""
        self._socket.close()
        self.drop(len(self._descriptors))
        if self._bridge:
            self._bridge.close()

    def serve(self, reader: int) -> None:
        """From now on raise BrokenPipeError, also while nothing comes, when nobody reads that descriptor."""
        self._reader = reader

    def send(self, data: bytes, deadline: float) -> None:
        """Write a whole message."""
        while data:
            self._wait(select.POLLOUT, deadline, None)
            try:
                data = data[self._socket.send(data, socket.MSG_NOSIGNAL) :]
            except OSError as error:
                raise self._lost(f"broke off: {error.strerror}") from None

    def next(self, deadline: float, waiting: Callable[[], None] | None) -> message.Message:
        """The next message; its descriptors are the next ones of `take` and `drop`.

        `waiting` is called now and then until it comes. Raises Malformed.
        """
        while (frame := self._framer.next()) is None:
            self._framer.feed(self._receive(deadline, waiting))
        return message.parse(frame)

    def take(self, count: int) -> list[int]:
        """The oldest descriptors that came, which are the caller's to close from now on."""
        taken, self._descriptors = self._descriptors[:count], self._descriptors[count:]
        return taken

    def drop(self, count: int) -> None:
        """Close the oldest descriptors that came."""
        for descriptor in self.take(count):
            os.close(descriptor)

    def _connect(self, bus: str, environment: Mapping[str, str]) -> socket.socket:
        try:
            targets = address.sockets(address.of(bus, environment), environment)
        except Malformed as error:
            raise Unreachable(f"cannot reach {self._bus}: {error}") from None
        failures = []
        for target in targets:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(target)
            except OSError as error:
                connection.close()
                failures.append(f"{target.replace(chr(0), '@', 1)}: {error.strerror}")
            else:
                connection.setblocking(False)
                return connection
        raise Unreachable(f"cannot reach {self._bus} at {'; '.join(failures)}. Is dbus running?")

    def _authenticate(self, deadline: float) -> None:
        late = f"{self._bus} says nothing. Try again, or look at what its machine does"
        self.send(sasl.hello(os.geteuid()), deadline)
        data = b""
        while True:
            data += self._receive(deadline, None, late)
            try:
                agreed = sasl.answer(data)
            except Malformed as error:
                raise Unreachable(f"cannot use {self._bus}: {error}") from None
            if agreed is not None:
                self.descriptors = agreed.unix_fds
                self._framer.feed(agreed.rest)
                return

    def _lost(self, how: str) -> Unreachable:
        return Unreachable(self._bridge.why() if self._bridge else f"{self._bus} {how}")

    def _receive(self, deadline: float, waiting: Callable[[], None] | None, late: str = "") -> bytes:
        self._wait(select.POLLIN, deadline, waiting, late)
        try:
            data, ancillary, _, _ = self._socket.recvmsg(
                _PIECE, socket.CMSG_SPACE(_DESCRIPTORS * 4), socket.MSG_CMSG_CLOEXEC
            )
        except OSError as error:
            raise self._lost(f"broke off: {error.strerror}") from None
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                whole = len(content) // 4
                self._descriptors += struct.unpack(f"{whole}i", content[: whole * 4])
        if not data:
            raise self._lost("closed the connection")
        return data

    def _wait(self, events: int, deadline: float, waiting: Callable[[], None] | None, late: str = "") -> None:
        poll = select.poll()
        poll.register(self._socket, events)
        if self._reader >= 0:
            poll.register(self._reader, 0)  # for what always comes: nobody reads on
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise Unreachable(late or self._late)
            if ready := poll.poll(1000 * min(left, _TICK if waiting else _LONGEST)):
                if any(descriptor == self._reader for descriptor, _ in ready):
                    raise BrokenPipeError
                return
            if waiting:
                waiting()
