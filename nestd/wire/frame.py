# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where one message ends and the next begins (D-Bus specification, "Message Format")."""

from struct import unpack_from
from typing import NamedTuple

from nestd.errors import Malformed

FIXED = 16
MESSAGE_LIMIT = 128 << 20  # the specification's
HEADER_LIMIT = 64 << 10
# Ours, for requests and for the replies that nestd asks for: Launch's user-data may have 512 KiB.
BODY_LIMIT = 640 << 10
_COMPACT = 1 << 16


class Frame(NamedTuple):
    """One message: `data` from its first byte to its last, its body from `start` on.

    `skipped`: the body was too large and is not there. `data` is then the header alone, or empty where
    even that was too large.
    """

    data: bytes
    start: int
    skipped: bool


def lengths(data: bytes | bytearray, offset: int = 0) -> tuple[int, int]:
    """The lengths of header (padding included) and body, from the first 16 bytes at `offset`.

    Malformed: no D-Bus message begins so, and nobody can say where the next one does.
    """
    endian, version = data[offset], data[offset + 3]
    if endian not in b"lB" or version != 1:
        raise Malformed("the stream does not hold D-Bus messages of version 1")
    order = "<" if endian == ord("l") else ">"
    body, _, fields = unpack_from(order + "III", data, offset + 4)
    header = -(-(FIXED + fields) // 8) * 8
    if header + body > MESSAGE_LIMIT:
        raise Malformed("a message is longer than the specification allows")
    return header, body


class Framer:
    """Cuts a stream into frames, and never holds more of one than the limits say.

    What is too large is dropped as it streams in.
    """

    def __init__(self, body_limit: int = BODY_LIMIT) -> None:
        self._body_limit = body_limit
        self._buffer: bytes | bytearray = b""
        self._offset = 0
        self._drop = 0

    @property
    def buffered(self) -> int:
        """Bytes that wait to become a frame."""
        return len(self._buffer) - self._offset

    def feed(self, data: bytes) -> None:
        """Add what was read."""
        if self._drop:
            dropped = min(self._drop, len(data))
            self._drop -= dropped
            data = data[dropped:]
        if not self._buffer:
            self._buffer = data  # mostly whole messages: cut without being copied before
            return
        if isinstance(self._buffer, bytes):
            self._buffer = bytearray(self._buffer)
        self._buffer += data

    def next(self) -> Frame | None:
        """The next frame, or None until more is fed. Raises Malformed: the stream is lost."""
        left = len(self._buffer) - self._offset
        if left < FIXED:
            return None
        header, body = lengths(self._buffer, self._offset)
        if header > HEADER_LIMIT:
            self._skip(header + body)
            return Frame(b"", 0, True)
        skipped = body > self._body_limit
        wanted = header if skipped else header + body
        if left < wanted:
            return None
        data = bytes(self._buffer[self._offset : self._offset + wanted])
        self._skip(header + body)
        return Frame(data, header, skipped)

    def _skip(self, size: int) -> None:
        left = len(self._buffer) - self._offset
        if size >= left:
            self._drop = size - left
            self._buffer = b""
            self._offset = 0
            return
        self._offset += size
        if self._offset > _COMPACT:
            self._buffer = self._buffer[self._offset :]
            self._offset = 0
