# SPDX-License-Identifier: LGPL-2.1-or-later
"""Boot images, as far as anybody here looks into them: a unified kernel image's sections."""

from __future__ import annotations

import struct

_AT = 0x80
_OPTIONAL = 240


def unified(sections: dict[str, bytes]) -> bytes:
    """A PE file with these sections and nothing that could be run."""
    head = bytearray(b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", _AT)).ljust(_AT, b"\0")
    head += struct.pack("<4sHHIIIHH", b"PE\0\0", 0x8664, len(sections), 0, 0, 0, _OPTIONAL, 0x22E)
    head += bytes(_OPTIONAL)
    body = bytearray()
    for name, data in sections.items():
        padded = data.ljust(-(-len(data) // 512) * 512, b"\0")
        place = 4096 + len(body)
        head += struct.pack("<8sIIII16x", name.encode(), len(data), 0x1000, len(padded), place)
        body += padded
    return bytes(head.ljust(4096, b"\0") + body)
