# SPDX-License-Identifier: LGPL-2.1-or-later
"""A deployment that ostree has staged: what is made the default one when the machine shuts down.

Sources: ostree, src/libostree/ostree-sysroot-deploy.c (ostree_sysroot_stage_tree_with_options); the GVariant
specification (a{sv}, in the machine's own byte order).
"""

from __future__ import annotations

import sys
from typing import NamedTuple

from nestd.errors import Malformed


class Staged(NamedTuple):
    """`folder` is where it is deployed, `words` its kernel arguments without `ostree=`.

    With `locked` it is not made the default before somebody unlocks it. `extra` are the keys that its boot
    loader entry gets beyond the usual ones (x-options-source-NAME).
    """

    folder: str
    words: tuple[str, ...]
    locked: bool
    extra: dict[str, str]


def parse(data: bytes) -> Staged:
    """The content of /run/ostree/staged-deployment. Raises Malformed."""
    try:
        said = _dictionary(data)
        target = _dictionary(_typed(said["target"], "a{sv}"))
        name, system = (_name(_string(_typed(target[key], "s"))) for key in ("name", "osname"))
        kargs = _elements(_typed(said["kargs"], "as"), 1) if "kargs" in said else []
        extra = _elements(_typed(said["bootconfig-extra"], "a{ss}"), 1) if "bootconfig-extra" in said else []
        return Staged(
            f"/ostree/deploy/{system}/deploy/{name}",
            tuple(word for word in map(_string, kargs) if not word.startswith("ostree=")),
            _typed(said["locked"], "b") == b"\1" if "locked" in said else False,
            dict(_pair(one) for one in extra),
        )
    except (KeyError, ValueError, IndexError) as failure:
        raise Malformed(f"not a staged deployment of ostree: {failure!r}") from None


def _name(text: str) -> str:
    if text in {"", ".", ".."} or "/" in text or "\0" in text:
        raise ValueError(f"{text!r} is no name of a folder")
    return text


def _width(data: bytes) -> int:
    """How many bytes each framing offset of a container of this size has."""
    return next(width for width in (1, 2, 4, 8) if len(data) < 1 << 8 * width)


def _offset(data: bytes, at: int) -> int:
    found = int.from_bytes(data[at : at + _width(data)], sys.byteorder)
    if found > len(data):
        raise ValueError("an offset that leads out of it")
    return found


def _elements(data: bytes, alignment: int) -> list[bytes]:
    """The elements of an array whose elements differ in size."""
    if not data:
        return []
    width = _width(data)
    table = _offset(data, len(data) - width)
    found = []
    start = 0
    for at in range(table, len(data), width):
        end = _offset(data, at)
        start += -start % alignment
        found.append(data[start:end])
        start = end
    return found


def _dictionary(data: bytes) -> dict[str, bytes]:
    """An a{sv}: each key with its variant."""
    found = {}
    for entry in _elements(data, 8):
        width = _width(entry)
        end = _offset(entry, len(entry) - width)
        found[_string(entry[:end])] = entry[end + -end % 8 : len(entry) - width]
    return found


def _pair(entry: bytes) -> tuple[str, str]:
    """An {ss}."""
    width = _width(entry)
    end = _offset(entry, len(entry) - width)
    return _string(entry[:end]), _string(entry[end : len(entry) - width])


def _typed(variant: bytes, signature: str) -> bytes:
    """What is in a variant that must be of that type."""
    value, _, found = variant.rpartition(b"\0")
    if found != signature.encode():
        raise ValueError(f"a value of the type {found!r} where {signature} was expected")
    return value


def _string(data: bytes) -> str:
    if not data.endswith(b"\0"):
        raise ValueError("a string without its end")
    return data[:-1].decode("utf-8", "surrogateescape")
