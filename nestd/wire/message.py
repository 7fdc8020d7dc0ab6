# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whole messages: what came in, with its body still unread, and the bytes of what goes out."""

from collections.abc import Sequence
from struct import pack
from typing import Any, NamedTuple

from nestd.wire import body, header
from nestd.wire.frame import Frame
from nestd.wire.header import Field, Flag, Header, Kind

_TEXT_FIELDS = {
    Field.PATH: b"o",
    Field.INTERFACE: b"s",
    Field.MEMBER: b"s",
    Field.ERROR_NAME: b"s",
    Field.DESTINATION: b"s",
}


# The fixed header's serial, and the serial that a reply of ours answers: _message puts it first.
_SERIAL = slice(8, 12)
_REPLY_SERIAL = slice(20, 24)
_ALIKE = 1024  # bytes of a call that is compared with others, and how many headers are known
_HEADERS = 256


class Message(NamedTuple):
    """A message that came in. Its body is parsed when `values` is asked for it, and not before.

    `alike`: all its bytes but the serial's, so that calls which differ in nothing else have the same;
    empty for what is too long, or no call.
    """

    header: Header
    frame: Frame
    alike: bytes = b""

    @property
    def size(self) -> int:
        """Bytes that it holds."""
        return len(self.frame.data)

    def values(self, limit: int = body.VALUES) -> list[Any]:
        """The body, of at most `limit` values. Raises Malformed."""
        return body.parse(
            self.header.signature, self.frame.data[self.frame.start :], self.header.little, values=limit
        )


def parse(frame: Frame) -> Message:
    """The message in a frame. Raises Malformed for a bad header; the body is not looked at."""
    return Message(header.parse(frame.data), frame)


class Parser:
    """Parses messages; a short call's header is read once for all calls that are alike."""

    def __init__(self) -> None:
        self._known: dict[bytes, Header] = {}

    def parse(self, frame: Frame) -> Message:
        """As `parse`, with `alike`."""
        data = frame.data
        if len(data) > _ALIKE or data[1:2] != b"\1":
            return parse(frame)
        alike = data[: _SERIAL.start] + data[_SERIAL.stop :]
        known = self._known.get(alike)
        serial = int.from_bytes(data[_SERIAL], "little" if data[:1] == b"l" else "big")
        if known is not None and serial:
            return Message(Header._make((*known[:2], serial, *known[3:])), frame, alike)
        read = header.parse(data)
        if len(self._known) >= _HEADERS:
            self._known.clear()
        self._known[alike] = read
        return Message(read, frame, alike)


def call(
    serial: int,
    destination: str,
    path: str,
    interface: str,
    member: str,
    signature: str = "",
    values: Sequence[Any] = (),
    *,
    flags: Flag = Flag(0),  # noqa: B008  # an int
    fds: int = 0,
) -> bytes:
    """A method call. ValueError or TypeError if the values are not what the signature says."""
    fields = [
        (Field.PATH, path),
        (Field.INTERFACE, interface),
        (Field.MEMBER, member),
        (Field.DESTINATION, destination),
    ]
    return _message(Kind.CALL, flags, serial, fields, 0, signature, values, fds)


def reply(serial: int, to: Header, signature: str = "", values: Sequence[Any] = (), *, fds: int = 0) -> bytes:
    """The answer to a call; errors as for `call`."""
    fields = [(Field.DESTINATION, to.sender)]
    return _message(Kind.REPLY, Flag.NO_REPLY_EXPECTED, serial, fields, to.serial, signature, values, fds)


def again(reply: bytes, serial: int, to: Header) -> bytes:
    """The bytes of a `reply`, as the answer to another call of the same sender: two serials are put in."""
    between, rest = reply[_SERIAL.stop : _REPLY_SERIAL.start], reply[_REPLY_SERIAL.stop :]
    start = reply[: _SERIAL.start]
    return b"".join((start, serial.to_bytes(4, "little"), between, to.serial.to_bytes(4, "little"), rest))


def error(serial: int, to: Header, name: str, text: str) -> bytes:
    """The answer to a call that failed."""
    fields = [(Field.ERROR_NAME, name), (Field.DESTINATION, to.sender)]
    return _message(Kind.ERROR, Flag.NO_REPLY_EXPECTED, serial, fields, to.serial, "s", [text], 0)


def signal(
    serial: int,
    path: str,
    interface: str,
    member: str,
    signature: str = "",
    values: Sequence[Any] = (),
    *,
    destination: str = "",
) -> bytes:
    """A signal, to everybody or to one; errors as for `call`."""
    fields = [
        (Field.PATH, path),
        (Field.INTERFACE, interface),
        (Field.MEMBER, member),
        (Field.DESTINATION, destination),
    ]
    return _message(Kind.SIGNAL, Flag.NO_REPLY_EXPECTED, serial, fields, 0, signature, values, 0)


def _message(
    kind: Kind,
    flags: Flag,
    serial: int,
    texts: Sequence[tuple[Field, str]],
    reply_serial: int,
    signature: str,
    values: Sequence[Any],
    fds: int,
) -> bytes:
    content = body.marshal(signature, values)
    fields = bytearray()
    if reply_serial:
        fields += pack("<BB1sxI", Field.REPLY_SERIAL, 1, b"u", reply_serial)
    for field, text in texts:
        if text:
            raw = text.encode()
            _align(fields)
            fields += pack("<BB1sxI", field, 1, _TEXT_FIELDS[field], len(raw)) + raw + b"\0"
    if fds:
        _align(fields)
        fields += pack("<BB1sxI", Field.UNIX_FDS, 1, b"u", fds)
    if signature:
        raw = signature.encode()
        _align(fields)
        fields += pack("<BB1sxB", Field.SIGNATURE, 1, b"g", len(raw)) + raw + b"\0"
    start = pack("<cBBBIII", b"l", kind, flags, 1, len(content), serial, len(fields))
    return start + bytes(fields) + bytes(-len(fields) % 8) + content


def _align(fields: bytearray) -> None:
    fields += bytes(-len(fields) % 8)
