# SPDX-License-Identifier: LGPL-2.1-or-later
"""The connection to the message bus: calls, signals and names (D-Bus specification)."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from nestd import errors, tasks
from nestd.bus import handshake
from nestd.bus.matches import BUS, Signal
from nestd.bus.stream import Stream
from nestd.bus.subscriptions import NO_OWNER, VALUES, Subscriptions
from nestd.wire import message
from nestd.wire.frame import BODY_LIMIT
from nestd.wire.header import Flag, Kind

_BUS_PATH = "/org/freedesktop/DBus"
_HANDSHAKE = 25.0  # seconds
_SERIALS = 1 << 32
_DISCONNECTED = "org.freedesktop.DBus.Error.Disconnected"
_INCONSISTENT = "org.freedesktop.DBus.Error.InconsistentMessage"

# Plain numbers: a member of an enumeration is looked up by a function on Python 3.11, for each message.
_ANSWERS = (int(Kind.REPLY), int(Kind.ERROR))
_SIGNAL = int(Kind.SIGNAL)

MessageHandler = Callable[[message.Message], bool]


class Connection:
    """A client of the bus; made by `Connection.connect`.

    A reply counts only while it is awaited, and only from whom it was asked of: a call to a well-known name
    asks the bus for its owner first (starting it where it can be started) and goes to that unique name;
    the bus itself may answer in its place with an error. Signals count only from their rule's sender.
    """

    def __init__(self) -> None:
        self.unique_name = ""
        self.unix_fds = False
        self._stream: Stream | None = None
        self._serial = 0
        self._waiting: dict[int, tuple[str, tasks.Future[message.Message]]] = {}
        self._subscriptions = Subscriptions(self)
        self._handlers: list[MessageHandler] = []
        self._lost = tasks.Event()

    @classmethod
    async def connect(cls, address: str, *, body_limit: int = BODY_LIMIT) -> Connection:
        """Connect to the first entry of a bus address that answers, authenticate, say Hello.

        Raises OSError: none can be connected to (TimeoutError: in time); Malformed: the address or the
        handshake is; CallFailed: the bus refuses Hello.
        """
        connection = cls()
        async with tasks.timeout(_HANDSHAKE):
            sock, agreed = await handshake.connect(address)
            connection.unix_fds = agreed.unix_fds
            connection._stream = Stream(sock, connection._on_message, connection._on_lost, body_limit)
            connection._stream.start(agreed.rest)
            try:
                [connection.unique_name] = await connection.bus("Hello")
            except BaseException:
                await connection.close()
                raise
        return connection

    def next_serial(self) -> int:
        """A serial for the next message; never 0."""
        self._serial = self._serial % (_SERIALS - 1) + 1
        return self._serial

    def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Queue a message built with nestd.wire.message; it is never dropped while the connection lasts.

        The descriptors belong to the connection from now on and are closed in every case.
        """
        if self._stream is None:
            raise RuntimeError("the connection was never made")
        self._stream.send(data, fds)

    async def call(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        body: Sequence[object] = (),
        *,
        limit: float = 25.0,
        interactive: bool = False,
        fds: Sequence[int] = (),
    ) -> list[Any]:
        """Call and return the body of the reply.

        `limit`: seconds for all of it. A value of the type h is a place in `fds`, which stay the caller's.
        Raises CallFailed with the error's name: the service's or the bus's own, NoReply after the limit,
        Disconnected; OSError: `fds` cannot be handed over. Cancelling it forgets the reply.
        """
        flags = Flag.ALLOW_INTERACTIVE_AUTHORIZATION if interactive else Flag(0)
        try:
            async with tasks.timeout(limit):
                owner = await self._owner(destination)
                serial = self.next_serial()
                data = message.call(
                    serial, owner, path, interface, member, signature, body, flags=flags, fds=len(fds)
                )
                answer = await self._ask(serial, owner, data, fds)
        except TimeoutError:
            raise errors.CallFailed(
                errors.NO_REPLY, f"{destination} did not answer {member} within {limit:g} s"
            ) from None
        return _result(answer)

    async def bus(self, member: str, signature: str = "", body: Sequence[object] = ()) -> list[Any]:
        """Call a method of the bus itself (org.freedesktop.DBus). Raises CallFailed."""
        return await self.call(BUS, _BUS_PATH, BUS, member, signature, body)

    def tell_bus(self, member: str, argument: str) -> None:
        """Call a method of the bus itself that takes a string, and expect no answer."""
        flags = Flag.NO_REPLY_EXPECTED
        serial = self.next_serial()
        self.send(message.call(serial, BUS, _BUS_PATH, BUS, member, "s", [argument], flags=flags))

    async def subscribe(self, rule: str, handler: Callable[[Signal], None]) -> Callable[[], Awaitable[None]]:
        """Have `handler` called for each signal that fits the rule, until the returned function is awaited.

        The rule must name type='signal' and the sender. Raises CallFailed; ValueError: not such a rule.
        """
        return await self._subscriptions.add(rule, handler)

    async def request_name(self, name: str, flags: int = 0) -> int:
        """RequestName; the bus's answer (1: primary owner). Raises CallFailed."""
        [answer] = await self.bus("RequestName", "su", [name, flags])
        return int(answer)

    async def release_name(self, name: str) -> int:
        """ReleaseName; the bus's answer (1: released). Raises CallFailed."""
        [answer] = await self.bus("ReleaseName", "s", [name])
        return int(answer)

    def add_message_handler(self, handler: MessageHandler) -> None:
        """Have `handler` get each message that is no awaited reply, until one handler returns True.

        A call that none of them takes is answered with UnknownMethod.
        """
        self._handlers.append(handler)

    async def wait_for_disconnect(self) -> None:
        """Return when the connection is gone, for whatever reason."""
        await self._lost.wait()

    async def close(self) -> None:
        """Send what is queued (for at most 5 s), then close. Calls under way fail with Disconnected."""
        if self._stream is not None:
            await self._stream.close()

    async def _owner(self, name: str) -> str:
        """The unique name behind a name; the service is started if that is possible."""
        if name.startswith(":") or name == BUS:
            return name
        try:
            [owner] = await self.bus("GetNameOwner", "s", [name])
        except errors.CallFailed as error:
            if error.name != NO_OWNER:
                raise
            await self.bus("StartServiceByName", "su", [name, 0])
            [owner] = await self.bus("GetNameOwner", "s", [name])
        return str(owner)

    async def _ask(self, serial: int, owner: str, data: bytes, fds: Sequence[int]) -> message.Message:
        if self._lost.is_set():
            raise errors.CallFailed(_DISCONNECTED, "the connection to the bus is closed")
        future: tasks.Future[message.Message] = tasks.Future()
        self._waiting[serial] = (owner, future)
        try:
            self.send(data, _copies(fds))
            return await future
        finally:
            del self._waiting[serial]

    def _on_message(self, received: message.Message) -> None:
        header = received.header
        if header.kind in _ANSWERS:
            owner, future = self._waiting.get(header.reply_serial, ("", None))
            from_bus = header.kind == Kind.ERROR and header.sender == BUS
            if future is not None and not future.done() and (header.sender == owner or from_bus):
                future.set_result(received)
            return
        if header.kind == _SIGNAL:
            self._subscriptions.on_signal(received)
        for handler in self._handlers:
            if handler(received):
                return
        if not header.wants_reply:
            return
        text = "Nothing here answers calls."
        self.send(message.error(self.next_serial(), header, errors.UnknownMethod.name, text))

    def _on_lost(self) -> None:
        self._lost.set()
        for _, future in self._waiting.values():
            if not future.done():
                future.set_exception(errors.CallFailed(_DISCONNECTED, "the connection to the bus was closed"))


def _copies(fds: Sequence[int]) -> list[int]:
    """Descriptors of the same open files, for one who closes them. OSError: there is no room for all."""
    made: list[int] = []
    try:
        made.extend(os.dup(fd) for fd in fds)
    except OSError:
        for fd in made:
            os.close(fd)
        raise
    return made


def _result(answer: message.Message) -> list[Any]:
    """The body of a reply. Raises CallFailed."""
    header = answer.header
    if answer.frame.skipped:
        raise errors.CallFailed(errors.LimitsExceeded.name, "the reply is too large")
    try:
        values = answer.values(VALUES)
    except errors.Malformed as error:
        raise errors.CallFailed(_INCONSISTENT, f"the reply makes no sense: {error}") from None
    if header.kind == Kind.ERROR:
        raise errors.CallFailed(header.error_name, str(values[0]) if header.signature[:1] == "s" else "")
    return values
