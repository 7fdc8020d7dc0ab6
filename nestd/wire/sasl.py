# SPDX-License-Identifier: LGPL-2.1-or-later
"""The handshake with a bus, by the kernel's word for who we are (D-Bus specification, "EXTERNAL")."""

from typing import NamedTuple

from nestd.errors import Malformed

_LIMIT = 4096


class Agreed(NamedTuple):
    """What the bus agreed to: its id, and whether descriptors can be sent. `rest` belongs to the stream."""

    guid: str
    unix_fds: bool
    rest: bytes


def hello(uid: int) -> bytes:
    """All that the client has to say, at once: the bus answers it line by line."""
    name = str(uid).encode().hex()
    return f"\0AUTH EXTERNAL {name}\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n".encode()


def answer(data: bytes) -> Agreed | None:
    """What the bus said to `hello`; None while there is more to come.

    Malformed: it refused, or it is no bus.
    """
    lines = data.split(b"\r\n", 2)
    if not lines[0].startswith(b"OK ") and (len(lines) > 1 or len(data) > _LIMIT):
        raise Malformed(f"the bus refuses the connection: {_show(lines[0])}")
    if len(lines) < 3:
        if len(data) > _LIMIT:
            raise Malformed("the bus does not end its handshake")
        return None
    if lines[1] != b"AGREE_UNIX_FD" and not lines[1].startswith(b"ERROR"):
        raise Malformed(f"the bus answers the question for descriptors with {_show(lines[1])}")
    return Agreed(lines[0][3:].decode("ascii", "replace"), lines[1] == b"AGREE_UNIX_FD", lines[2])


def _show(line: bytes) -> str:
    return repr(line[:80].decode("ascii", "replace"))
