# SPDX-License-Identifier: LGPL-2.1-or-later
"""Frames, headers and whole messages."""

from __future__ import annotations

from struct import pack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestd.errors import Malformed
from nestd.wire import header, message
from nestd.wire.frame import HEADER_LIMIT, Framer
from nestd.wire.header import Flag, Header, Kind

# Hello as libdbus sends it, less the flags.
_HELLO = bytes.fromhex(
    "6c01000100000000010000006d000000"
    "01016f00150000002f6f72672f667265656465736b746f702f444275730000 00"
    "020173001400 00006f72672e667265656465736b746f702e4442757300000000"
    "030173000500000048656c6c6f000000"
    "06017300140000006f72672e667265656465736b746f702e4442757300000000".replace(" ", "")
)
_BIG = bytes.fromhex(
    "42040001 00000004 00000009 00000037"
    "01016f00 00000002 2f610000 00000000"
    "02017300 00000003 612e6200 00000000"
    "03017300 00000001 4d000000 00000000"
    "08016700 01750000 000000ff"
)


def _raw(fields: bytes, kind: int = 1, serial: int = 1, flags: int = 0) -> bytes:
    data = pack("<cBBBIII", b"l", kind, flags, 1, 0, serial, len(fields)) + fields
    return data + bytes(-len(data) % 8)


def _text(code: int, text: str, signature: str = "s") -> bytes:
    raw = text.encode()
    data = bytes([code, 1]) + signature.encode() + b"\0" + pack("<I", len(raw)) + raw + b"\0"
    return data + bytes(-len(data) % 8)


_PATH, _MEMBER = _text(1, "/a", "o"), b"\x03\x01s\0\x01\0\0\0M\0"


def test_a_message_of_libdbus() -> None:
    [frame] = _frames(_HELLO)
    read = message.parse(frame).header
    assert (read.kind, read.serial, read.little) == (Kind.CALL, 1, True)
    assert (read.path, read.member) == ("/org/freedesktop/DBus", "Hello")
    assert read.interface == read.destination == "org.freedesktop.DBus"
    assert message.parse(frame).values() == []


def test_a_big_endian_message() -> None:
    [frame] = _frames(_BIG)
    read = message.parse(frame)
    assert (read.header.path, read.header.interface, read.header.member) == ("/a", "a.b", "M")
    assert read.header.serial == 9
    assert read.values() == [255]


def test_what_is_built_is_read_back() -> None:
    call = message.call(7, "a.b", "/c", "d.e", "F", "su", ["x", 2], flags=Flag.NO_AUTO_START, fds=1)
    [frame] = _frames(call)
    read = message.parse(frame)
    expected = Header(1, 2, 7, True, "/c", "d.e", "F", "", 0, "a.b", "", "su", 1)
    assert (read.header, read.values()) == (expected, ["x", 2])
    caller = expected._replace(sender=":1.9")
    reply = message.parse(_frames(message.reply(8, caller, "s", ["ok"]))[0])
    assert (reply.header.kind, reply.header.reply_serial, reply.values()) == (Kind.REPLY, 7, ["ok"])
    error = message.parse(_frames(message.error(9, caller, "e.E", "why"))[0])
    assert (error.header.error_name, error.header.destination, error.values()) == ("e.E", ":1.9", ["why"])
    signal = message.parse(_frames(message.signal(10, "/c", "d.e", "S", "b", [True]))[0])
    assert (signal.header.kind, signal.header.destination, signal.values()) == (Kind.SIGNAL, "", [True])
    assert not signal.header.wants_reply
    assert read.header.wants_reply


def test_the_full_library_reads_what_is_built_and_the_other_way_round() -> None:
    from dbus_next._private.unmarshaller import Unmarshaller
    from dbus_next.constants import MessageType
    from dbus_next.message import Message

    class Stream:
        def __init__(self, data: bytes) -> None:
            self._data = data

        def read(self, size: int) -> bytes:
            taken, self._data = self._data[:size], self._data[size:]
            return taken

    ours = message.call(3, "a.b", "/c", "d.e", "F", "as", [["x"]])
    unmarshaller: Any = Unmarshaller
    theirs = unmarshaller(Stream(ours)).unmarshall()
    assert (theirs.path, theirs.interface, theirs.member, theirs.body) == ("/c", "d.e", "F", [["x"]])
    assert theirs.message_type is MessageType.METHOD_CALL
    written: Any = Message(
        destination="a.b", path="/c", interface="d.e", member="F", signature="as", body=[["x"]], serial=4
    )
    read = message.parse(_frames(bytes(written._marshall()))[0])
    assert (read.header.path, read.header.member, read.values()) == ("/c", "F", [["x"]])


@pytest.mark.parametrize("data", [_HELLO, _BIG])
def test_a_message_cut_off_at_any_byte(data: bytes) -> None:
    for end in range(len(data)):
        framer = Framer()
        framer.feed(data[:end])
        assert framer.next() is None
        framer.feed(data[end:])
        assert framer.next() is not None
        if end < 16 + data[12]:
            with pytest.raises(Malformed):
                header.parse(data[:end])


@settings(deadline=None)
@given(st.integers(0, len(_HELLO) - 1), st.integers(1, 255))
def test_a_header_with_any_byte_wrong_is_read_or_malformed(place: int, change: int) -> None:
    data = bytearray(_HELLO)
    data[place] ^= change
    try:
        read = header.parse(bytes(data))
    except Malformed:
        return
    assert read.path.startswith("/") or read.kind != Kind.CALL


def test_what_is_not_known_is_passed_over() -> None:
    """facts.md: "an unknown header field raises and ends the connection"."""
    unknown = [
        b"\x2a\x01s\0\x01\0\0\0x\0" + bytes(6),
        b"\xff\x01u\0\x01\0\0\0",
        b"\x0b\x05a{sv}\0" + bytes(4 + 4),  # an empty dictionary, with the padding before its first entry
        b"\x0c\x01v\0\x01y\0\x07",
    ]
    for field in unknown:
        padded = field + bytes(-len(field) % 8)
        read = header.parse(_raw(_PATH + padded + _MEMBER, flags=0xF8))
        assert (read.path, read.member, read.wants_reply) == ("/a", "M", True)
    assert header.parse(_raw(_MEMBER, kind=77)).kind == 77


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(_MEMBER, id="no path"),
        pytest.param(_PATH, id="no member"),
        pytest.param(_PATH + _PATH + _MEMBER, id="a field twice"),
        pytest.param(_text(1, "/a", "s") + _MEMBER, id="a path that is a string"),
        pytest.param(_text(1, "a", "o") + _MEMBER, id="a path without a slash"),
        pytest.param(_PATH + _text(3, "a.b"), id="a member with a dot"),
        pytest.param(_PATH + _text(3, "M" * 256), id="a member that is too long"),
        pytest.param(_PATH + _text(2, "a") + _MEMBER, id="an interface without a dot"),
        pytest.param(_PATH + _text(7, "\n") + _MEMBER, id="a sender that is no name"),
        pytest.param(_PATH + b"\0\x01u\0\x01\0\0\0" + _MEMBER, id="field 0"),
        pytest.param(_PATH + b"\x0b\x02ss\0" + bytes(19) + _MEMBER, id="an unknown field of two types"),
        pytest.param(_PATH + b"\x0b\xffs\0" + bytes(4) + _MEMBER, id="a signature beyond the end"),
        pytest.param(_PATH + _MEMBER[:-1] + b"x", id="no NUL at the end"),
        pytest.param(_PATH + _MEMBER[:4] + b"\xff\xff\xff\xff", id="a string beyond the end"),
    ],
)
def test_a_bad_header_is_malformed(fields: bytes) -> None:
    with pytest.raises(Malformed):
        header.parse(_raw(fields))


@pytest.mark.parametrize(("kind", "serial"), [(0, 1), (1, 0), (2, 1), (3, 1), (4, 1)])
def test_a_header_that_lacks_something_is_malformed(kind: int, serial: int) -> None:
    with pytest.raises(Malformed):
        header.parse(_raw(_PATH + _MEMBER, kind=kind, serial=serial))


@pytest.mark.parametrize(
    "data", [b"x" * 16, b"l\x01\0\x02" + bytes(12), b"l\x01\0\x01\xff\xff\xff\x7f" + bytes(8)]
)
def test_a_stream_without_messages_is_lost(data: bytes) -> None:
    framer = Framer()
    framer.feed(data)
    with pytest.raises(Malformed):
        framer.next()


def test_a_large_body_is_never_held() -> None:
    """facts.md: "a 30 MB array to a method that does not exist"."""
    start = pack("<cBBBIII", b"l", 1, 0, 1, 30 << 20, 5, len(_PATH + _MEMBER))
    head = start + _PATH + _MEMBER
    head += bytes(-len(head) % 8)
    framer = Framer()
    framer.feed(head[:20])
    assert framer.next() is None
    framer.feed(head[20:])
    frame = framer.next()
    assert frame is not None
    assert frame.skipped
    assert message.parse(frame).header.member == "M"
    for _ in range(30 << 4):
        framer.feed(bytes(1 << 16))
        assert framer.next() is None
        assert framer.buffered == 0
    framer.feed(_HELLO)
    after = framer.next()
    assert after is not None
    assert after.data == _HELLO


def test_a_header_that_is_too_large_is_dropped() -> None:
    start = pack("<cBBBIII", b"l", 1, 0, 1, 0, 5, HEADER_LIMIT + 8)
    framer = Framer()
    framer.feed(start + bytes(HEADER_LIMIT + 8) + _HELLO)
    dropped, after = framer.next(), framer.next()
    assert dropped == (b"", 0, True)
    assert after is not None
    assert after.data == _HELLO


def test_many_messages_in_one_piece() -> None:
    framer = Framer()
    framer.feed(_HELLO * 2000 + _HELLO[:5])
    assert sum(framer.next() is not None for _ in range(2001)) == 2000
    assert framer.buffered == 5


def _frames(data: bytes) -> list[Any]:
    framer = Framer()
    framer.feed(data)
    found = []
    while (frame := framer.next()) is not None:
        found.append(frame)
    assert framer.buffered == 0
    return found
