# SPDX-License-Identifier: LGPL-2.1-or-later
"""The sections of a PE file, of which a unified kernel image is made (PE/COFF specification; UAPI.5 UKI)."""

from __future__ import annotations

import struct
from typing import NamedTuple

from nestd.errors import Malformed

# Bytes from the beginning of a file that hold all headers, with room to spare.
HEADERS = 16 << 10
_SECTION = struct.Struct("<8sIIII16x")


class Section(NamedTuple):
    """Where a section lies in the file: `offset` and `size` are bytes; what is beyond `size` is padding."""

    offset: int
    size: int


def sections(head: bytes) -> dict[str, Section]:
    """The sections by their names, from the first HEADERS bytes; of one name the first. Raises Malformed."""
    try:
        if head[:2] != b"MZ":
            raise Malformed("not a PE file: it does not begin with MZ")
        (at,) = struct.unpack_from("<I", head, 0x3C)
        signature, count, optional = struct.unpack_from("<4s2xH12xH", head, at)
        if signature != b"PE\0\0":
            raise Malformed("not a PE file: it has no PE header")
        found: dict[str, Section] = {}
        for number in range(count):
            name, virtual, _, raw, offset = _SECTION.unpack_from(
                head, at + 24 + optional + number * _SECTION.size
            )
            key = name.rstrip(b"\0").decode("ascii", "replace")
            found.setdefault(key, Section(offset, min(virtual, raw) if virtual else raw))
    except struct.error as failure:
        raise Malformed(f"not a whole PE file: {failure}") from None
    return found
