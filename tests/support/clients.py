# SPDX-License-Identifier: LGPL-2.1-or-later
"""A client of the bus, as any user: calls, signals, and calls made to it."""

from __future__ import annotations

import io
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import nestd.wire.library  # noqa: F401 -- what follows then comes without dbus-next's GLib half

from dbus_next._private.unmarshaller import Unmarshaller  # isort: skip
from dbus_next.constants import MessageFlag, MessageType  # isort: skip
from dbus_next.message import Message  # isort: skip
from dbus_next.signature import Variant  # isort: skip

__all__ = ["CallError", "Client", "Message", "Variant", "options", "plain"]

NAME = "org.nestd1"
PATH = "/org/nestd1"
MANAGER = "org.nestd1.Manager"
PROPERTIES = "org.freedesktop.DBus.Properties"
DBUS = "org.freedesktop.DBus"

# The bus and polkit want accounts that exist: these are unprivileged ones of every Debian (base-passwd).
ROOT, ALICE, BOB, NOBODY = 0, 5, 8, 65534
LIMIT = 30.0  # seconds: beyond any answer that is still to come


class CallError(Exception):
    """The answer was an error."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name
        self.text = text


class Client:
    """A connection whose credentials are those of `uid`; its process is this one.

    Signals that arrive while something else is awaited are kept for `signal`; descriptors that came with
    messages are in `descriptors`, and closed with the client. `sent_there` is the serial of the last reply:
    how many messages its sender had sent by then. `connected` is a socket on which nothing was said yet: the
    process behind it is then the one that has connected it (tests/support/logins.py).
    """

    def __init__(self, address: str, uid: int = ROOT, connected: socket.socket | None = None) -> None:
        self.uid = uid
        self.descriptors: list[int] = []
        self.sent_there = 0
        self._signals: deque[Message] = deque()
        self._calls: deque[Message] = deque()
        self._replies: dict[int, Message] = {}
        self._serial = 0
        self._buffer = b""
        self._socket = connected or socket.socket(socket.AF_UNIX)
        try:
            if connected is None:
                self._connect(address.removeprefix("unix:path="))
            self._authenticate()
            self.unique_name = str(self.call("Hello", destination=DBUS, path="/", interface=DBUS)[0])
        except BaseException:
            self._socket.close()
            raise

    def send(
        self, member: str, signature: str = "", body: Sequence[Any] = (), *, destination: str = NAME,
        path: str = PATH, interface: str = MANAGER, interactive: bool = False, no_reply: bool = False,
    ) -> int:  # fmt: skip
        """Send a method call; returns its serial."""
        flags = MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION if interactive else MessageFlag.NONE
        flags |= MessageFlag.NO_REPLY_EXPECTED if no_reply else MessageFlag.NONE
        message = Message(
            destination, path, interface, member, flags=flags, signature=signature, body=[*body]
        )
        return self.send_message(message)

    def send_message(self, message: Message) -> int:
        """Send any message; returns its serial."""
        self._serial += 1
        message.serial = self._serial
        self._socket.sendall(message._marshall())  # type: ignore[no-untyped-call]
        return self._serial

    def reply(self, serial: int, limit: float = LIMIT) -> list[Any]:
        """Wait for the reply to a call; its values, variants taken out of their wrapping. CallError."""
        deadline = time.monotonic() + limit
        while serial not in self._replies:
            self._keep(self._receive(deadline, f"the reply to message {serial}"))
        reply = self._replies.pop(serial)
        self.sent_there = reply.serial
        if reply.message_type is MessageType.ERROR:
            raise CallError(reply.error_name, str(reply.body[0]) if reply.body else "")
        return [plain(value) for value in reply.body]

    def call(self, member: str, signature: str = "", body: Sequence[Any] = (), **how: Any) -> list[Any]:
        """Call and wait for the reply; `how` is as for `send`. CallError."""
        return self.reply(self.send(member, signature, body, **how))

    def error(self, member: str, signature: str = "", body: Sequence[Any] = (), **how: Any) -> CallError:
        """Call and wait for the error; AssertionError if the call works."""
        return self.failure(self.send(member, signature, body, **how))

    def failure(self, serial: int) -> CallError:
        """Wait for the error that answers a call; AssertionError if the call has worked."""
        try:
            values = self.reply(serial)
        except CallError as error:
            return error
        raise AssertionError(f"an error was expected, not {values}")

    def get(self, name: str) -> Any:
        """One property of the manager."""
        return self.call("Get", "ss", [MANAGER, name], interface=PROPERTIES)[0]

    def get_all(self) -> dict[str, Any]:
        """All properties of the manager."""
        return dict(self.call("GetAll", "s", [MANAGER], interface=PROPERTIES)[0])

    def reply_name(self, serial: int) -> str:
        """Wait for the reply to a call: the error's name, or nothing."""
        try:
            self.reply(serial)
        except CallError as error:
            return error.name
        return ""

    def replies_so_far(self) -> list[str]:
        """The errors' names, or nothing, of the replies that have come and that nobody has waited for."""
        self.owner_of(NAME)
        return [reply.error_name or "" for reply in self._replies.values()]

    def subscribe(self, rule: str = f"type='signal',sender='{NAME}'") -> None:
        """Ask the bus for signals."""
        self.call("AddMatch", "s", [rule], destination=DBUS, path="/", interface=DBUS)

    def signal(self, member: str, matching: Callable[[list[Any]], bool] = lambda _: True) -> list[Any]:
        """Wait for a signal of that name whose values fit; other signals before it are dropped."""
        deadline = time.monotonic() + LIMIT
        while True:
            while self._signals:
                message = self._signals.popleft()
                values = [plain(value) for value in message.body]
                if message.member == member and matching(values):
                    return values
            self._keep(self._receive(deadline, f"the signal {member}"))

    def signals_so_far(self) -> list[str]:
        """The names of the signals that have arrived; a call before it brings in what was sent earlier."""
        names = [message.member for message in self._signals]
        self._signals.clear()
        return names

    def incoming(self, member: str) -> Message:
        """Wait for a call of that method on this client, which then has to answer it."""
        deadline = time.monotonic() + LIMIT
        while not self._calls:
            self._keep(self._receive(deadline, f"a call of {member}"))
        message = self._calls.popleft()
        assert message.member == member
        return message

    def calls_so_far(self) -> list[str]:
        """The names of the methods that were called on this client and have not been taken."""
        return [message.member for message in self._calls]

    def owner_of(self, name: str) -> str:
        """The unique name of a name's owner; empty if there is none."""
        try:
            return str(self.call("GetNameOwner", "s", [name], destination=DBUS, path="/", interface=DBUS)[0])
        except CallError:
            return ""

    def close(self) -> None:
        """Leave the bus."""
        self._socket.close()
        while self.descriptors:
            os.close(self.descriptors.pop())

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _connect(self, path: str) -> None:
        os.seteuid(self.uid)  # SO_PEERCRED tells the effective user of the moment of connect(2)
        try:
            self._socket.connect(path)
        finally:
            os.seteuid(0)

    def _authenticate(self) -> None:
        self._socket.sendall(b"\0AUTH EXTERNAL " + str(self.uid).encode().hex().encode() + b"\r\n")
        answer = self._socket.recv(200)
        if not answer.startswith(b"OK "):
            raise ConnectionRefusedError(f"the bus does not know user {self.uid}: {answer!r}")
        self._socket.sendall(b"NEGOTIATE_UNIX_FD\r\n")
        answer = self._socket.recv(200)
        if answer != b"AGREE_UNIX_FD\r\n":
            raise ConnectionRefusedError(f"the bus passes no descriptors: {answer!r}")
        self._socket.sendall(b"BEGIN\r\n")

    def _keep(self, message: Message) -> None:
        if message.message_type is MessageType.SIGNAL:
            self._signals.append(message)
        elif message.message_type is MessageType.METHOD_CALL:
            self._calls.append(message)
        else:
            self._replies[message.reply_serial] = message

    def _receive(self, deadline: float, what: str) -> Message:
        while True:
            size = _size(self._buffer)
            if size is not None and len(self._buffer) >= size:
                frame, self._buffer = self._buffer[:size], self._buffer[size:]
                reader = Unmarshaller(io.BytesIO(frame))  # type: ignore[no-untyped-call]
                message = reader.unmarshall()  # type: ignore[no-untyped-call]
                assert isinstance(message, Message)
                return message
            if not select.select([self._socket], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"nothing came while waiting for {what}")
            data, descriptors, _, _ = socket.recv_fds(self._socket, 65536, 16)
            self.descriptors += descriptors
            if not data:
                raise ConnectionResetError(f"the bus hung up while waiting for {what}")
            self._buffer += data


def _size(buffer: bytes) -> int | None:
    """The length of the message that begins the buffer (D-Bus specification, Message Format)."""
    if len(buffer) < 16:
        return None
    order: Any = "little" if buffer[:1] == b"l" else "big"
    fields = int.from_bytes(buffer[12:16], order)
    return 16 + (fields + 7) // 8 * 8 + int.from_bytes(buffer[4:8], order)


def plain(value: Any) -> Any:
    """The value with every variant taken out of its wrapping."""
    if isinstance(value, Variant):
        return plain(value.value)
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return value


def options(**given: str | bool | int) -> dict[str, Variant]:
    """An a{sv} of strings, booleans and unsigned numbers; `dry_run` becomes `dry-run`."""
    kinds = {str: "s", bool: "b", int: "u"}
    return {name.replace("_", "-"): Variant(kinds[type(value)], value) for name, value in given.items()}
