# SPDX-License-Identifier: LGPL-2.1-or-later
"""Message headers, bytes to values (D-Bus specification, "Message Format").

Header fields, flags and message types that are not known are passed over, as the specification asks:
dbus-broker forwards them from anybody to anybody.
"""

import re
from enum import IntEnum, IntFlag
from typing import NamedTuple

from nestd.errors import Malformed
from nestd.wire import body
from nestd.wire.frame import FIXED, lengths

# So many values may be in the fields that are not known.
_VALUES = 512
_NAME_LIMIT = 255
_MEMBER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_INTERFACE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)+")
_BUS_NAME = re.compile(r":?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)+")


class Kind(IntEnum):
    """Message types."""

    CALL = 1
    REPLY = 2
    ERROR = 3
    SIGNAL = 4


class Flag(IntFlag):
    """Message flags."""

    NO_REPLY_EXPECTED = 1
    NO_AUTO_START = 2
    ALLOW_INTERACTIVE_AUTHORIZATION = 4


class Field(IntEnum):
    """Codes of the header fields."""

    PATH = 1
    INTERFACE = 2
    MEMBER = 3
    ERROR_NAME = 4
    REPLY_SERIAL = 5
    DESTINATION = 6
    SENDER = 7
    SIGNATURE = 8
    UNIX_FDS = 9


# A plain number: `&` with a Flag makes a Flag, which takes a microsecond for each message.
_NO_REPLY = int(Flag.NO_REPLY_EXPECTED)


class Header(NamedTuple):
    """What a message's header says; text fields that are not there are empty, numbers 0.

    `kind` and `flags` are plain numbers, as a peer may use values that are not known here.
    """

    kind: int
    flags: int
    serial: int
    little: bool
    path: str
    interface: str
    member: str
    error_name: str
    reply_serial: int
    destination: str
    sender: str
    signature: str
    unix_fds: int

    @property
    def wants_reply(self) -> bool:
        """Whether this is a call whose sender waits for an answer."""
        return self.kind == Kind.CALL and not self.flags & _NO_REPLY


_TYPES = {
    Field.PATH: "o",
    Field.INTERFACE: "s",
    Field.MEMBER: "s",
    Field.ERROR_NAME: "s",
    Field.REPLY_SERIAL: "u",
    Field.DESTINATION: "s",
    Field.SENDER: "s",
    Field.SIGNATURE: "g",
    Field.UNIX_FDS: "u",
}
_PATTERNS = {
    Field.INTERFACE: _INTERFACE,
    Field.MEMBER: _MEMBER,
    Field.ERROR_NAME: _INTERFACE,
    Field.DESTINATION: _BUS_NAME,
    Field.SENDER: _BUS_NAME,
}
_REQUIRED = {
    Kind.CALL: (Field.PATH, Field.MEMBER),
    Kind.REPLY: (Field.REPLY_SERIAL,),
    Kind.ERROR: (Field.ERROR_NAME, Field.REPLY_SERIAL),
    Kind.SIGNAL: (Field.PATH, Field.INTERFACE, Field.MEMBER),
}


def parse(data: bytes) -> Header:
    """The header at the beginning of `data`, which holds at least all of it.

    Malformed: it breaks a rule of the specification, a field that is known has the wrong type or is
    there twice, or one that this type of message must have is missing.
    """
    if len(data) < FIXED:
        raise Malformed("a message is shorter than its fixed header")
    little = data[0] == ord("l")
    header_length, _ = lengths(data)
    if header_length > len(data):
        raise Malformed("a header is cut off")
    serial = int.from_bytes(data[8:12], "little" if little else "big")
    end = FIXED + int.from_bytes(data[12:16], "little" if little else "big")
    if serial == 0 or data[1] == 0:
        raise Malformed("a message has the serial 0 or the type 0")
    reader = body.Reader(data[:header_length], little, _VALUES, FIXED)
    texts: dict[int, str] = {}
    numbers: dict[int, int] = {}
    while reader.position < end:
        _field(reader, texts, numbers)
    if reader.position != end:
        raise Malformed("the header fields are longer than they say")
    reader.align(8)
    for field in _REQUIRED.get(data[1], ()):  # type: ignore[call-overload]  # an IntEnum equals its number
        if field not in texts and not numbers.get(field):
            raise Malformed(f"a message of type {data[1]} lacks its {field.name}")
    return Header(
        kind=data[1],
        flags=data[2],
        serial=serial,
        little=little,
        path=texts.get(Field.PATH, ""),
        interface=texts.get(Field.INTERFACE, ""),
        member=texts.get(Field.MEMBER, ""),
        error_name=texts.get(Field.ERROR_NAME, ""),
        reply_serial=numbers.get(Field.REPLY_SERIAL, 0),
        destination=texts.get(Field.DESTINATION, ""),
        sender=texts.get(Field.SENDER, ""),
        signature=texts.get(Field.SIGNATURE, ""),
        unix_fds=numbers.get(Field.UNIX_FDS, 0),
    )


def _field(reader: body.Reader, texts: dict[int, str], numbers: dict[int, int]) -> None:
    """Read one field into `texts` or `numbers`, or past it."""
    reader.align(8)
    code = reader.number("y")
    signature = reader.text(reader.number("y"))
    if code == 0:
        raise Malformed("a header field has the code 0")
    wanted = _TYPES.get(code)
    if wanted is None:
        reader.pass_over(signature)
        return
    if signature != wanted:
        raise Malformed(f"header field {code} has the type {signature!r}, not {wanted!r}")
    if code in texts or code in numbers:
        raise Malformed(f"header field {code} is there twice")
    if wanted == "u":
        numbers[code] = reader.number("u")
        return
    text = reader.text(reader.number("y" if wanted == "g" else "u"))
    pattern = _PATTERNS.get(code)
    if pattern is not None and (len(text) > _NAME_LIMIT or pattern.fullmatch(text) is None):
        raise Malformed(f"header field {code} is no valid name")
    if wanted == "o" and not body.is_path(text):
        raise Malformed("the object path is invalid")
    texts[code] = text
