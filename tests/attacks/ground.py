# SPDX-License-Identifier: LGPL-2.1-or-later
"""The attacker's side: connections as any user, any bytes, and a note of all that nestd answered."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from struct import pack, unpack_from

from nestd.wire import message
from nestd.wire.header import Flag, Kind
from tests.bus.rawclient import BUS, RawClient
from tests.support.clients import MANAGER, NAME, NOBODY, PATH, ROOT

QUIET = Flag.NO_REPLY_EXPECTED
PEER = "org.freedesktop.DBus.Peer"
PROPERTIES = "org.freedesktop.DBus.Properties"
# dbus-daemon lets a connection wait for 128 replies (max_replies_per_connection).
AT_ONCE = 100


class Ground:
    """Where an attack takes place. `seconds` is how long a flood lasts.

    `errors` are nestd's, by name, with a text of each; `answers` counts what nestd said at all, and
    `from_bus` the errors that were the bus's own.
    """

    def __init__(self, address: str, seconds: float) -> None:
        self.seconds = seconds
        self.answers = 0
        self.errors: dict[str, str] = {}
        self.from_bus: Counter[str] = Counter()
        self._address = address

    @contextmanager
    def client(self, uid: int = NOBODY) -> Iterator[RawClient]:
        """A connection of that user. That the bus ends it is the bus's right, and ends the block."""
        with suppress(ConnectionError), self.connect(uid) as client:
            yield client

    def connect(self, uid: int = NOBODY) -> RawClient:
        """The same, for the caller to close. ConnectionError: the bus does not want it."""
        # SO_PEERCRED has the effective user of connect(2), and the handshake names the real one.
        os.setresuid(uid, uid, ROOT)
        try:
            return RawClient(self._address)
        finally:
            os.setresuid(ROOT, ROOT, ROOT)

    def drain(self, client: RawClient) -> None:
        """Note all answers to what was sent so far. ConnectionError: the bus has ended the connection."""
        last = client.post(NAME, PATH, PEER, "Ping")
        while self.note(client).header.reply_serial != last:
            pass

    def note(self, client: RawClient) -> message.Message:
        """Receive one message, and note it if it is an answer."""
        received = client.receive()
        header = received.header
        if header.kind == Kind.ERROR and header.sender == BUS:
            self.from_bus[header.error_name] += 1
        elif header.kind == Kind.ERROR:
            self.answers += 1
            self.errors.setdefault(header.error_name, str(received.values(1 << 20)[:1]))
        elif header.kind == Kind.REPLY:
            self.answers += 1
        return received


def with_field(data: bytes, field: bytes) -> bytes:
    """A message with one more header field (its code, its signature, its value)."""
    (length,) = unpack_from("<I", data, 12)
    body = data[-(-(16 + length) // 8) * 8 :]
    fields = data[16 : 16 + length] + bytes(-length % 8) + field
    return data[:12] + pack("<I", len(fields)) + fields + bytes(-len(fields) % 8) + body


def crafted(
    serial: int,
    member: str,
    signature: str = "",
    body: bytes = b"",
    *,
    flags: int = 0,
    interface: str = MANAGER,
) -> bytes:
    """A call of nestd's manager with any bytes as its body, whatever the signature says."""
    data = bytearray(message.call(serial, NAME, PATH, interface, member))
    data[2] |= flags
    data[4:8] = pack("<I", len(body))
    if signature:
        raw = signature.encode()
        data = bytearray(with_field(bytes(data), b"\x08\x01g\0" + bytes([len(raw)]) + raw + b"\0"))
    return bytes(data) + body


def option(name: str, signature: str, value: bytes, alignment: int = 1) -> bytes:
    """The body of an a{sv} with one entry, whose value is any bytes under any signature."""
    entry = pack("<I", len(name)) + name.encode() + b"\0"
    entry += bytes([len(signature)]) + signature.encode() + b"\0"
    entry += bytes(-len(entry) % alignment) + value
    return pack("<II", len(entry), 0) + entry
