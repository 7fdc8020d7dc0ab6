# SPDX-License-Identifier: LGPL-2.1-or-later
"""What differs from node to node of a lab, in texts that are given once for all: %n, %i, %a, %l."""

from __future__ import annotations

import re
from typing import NamedTuple

from nestd.errors import InvalidArgs

# gzip's magic (RFC 1952): cloud-init takes user-data so, and nothing can be put into that.
_PACKED = b"\x1f\x8b"
# Stands for a percent sign meanwhile. No text has it: neither the bus nor latin-1 knows surrogates.
_PERCENT = "\ud800"


class Node(NamedTuple):
    """The node whose text it is; `address` is without its prefix length."""

    name: str
    number: int
    address: str
    lab: str


def put_in(text: str, node: Node, what: str) -> str:
    """The text of one node. InvalidArgs: another % than these; it names `what`."""
    # Whoever asks has not been judged yet, and half a MiB may be nothing but these: so never one by one.
    made = text.replace("%%", _PERCENT)
    for letter, value in (("n", node.name), ("i", str(node.number)), ("a", node.address), ("l", node.lab)):
        made = made.replace(f"%{letter}", value)
    if wrong := re.search("%.?", made, re.DOTALL):
        raise InvalidArgs(
            f"{what} has {wrong[0]!a}, which is none of %n (the node's name), %i (its number), %a (its "
            "address) and %l (the lab): write %% for a percent sign."
        )
    return made.replace(_PERCENT, "%")


def put_in_bytes(data: bytes, node: Node) -> bytes:
    """`put_in` for user-data, whatever its encoding. What is packed stays as it is."""
    if data.startswith(_PACKED):
        return data
    return put_in(data.decode("latin-1"), node, "user-data").encode("latin-1")
