# SPDX-License-Identifier: LGPL-2.1-or-later
"""Boot Loader Specification entries, and which of them is booted when nobody chooses.

Sources: uapi-group.org/specifications/specs/boot_loader_specification; systemd, src/boot/efi/boot.c
(order and default), src/fundamental/string-util-fundamental.c (strverscmp_improved).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple


class Entry(NamedTuple):
    """One entry. `id` is the file's name, without `.conf`; `path` and `line` tell where its options are.

    `options` are as written, all lines together. An entry without `linux` boots something else.
    """

    id: str
    path: str
    line: int
    title: str
    linux: str
    initrd: str
    options: str
    version: str
    sort_key: str = ""
    machine_id: str = ""
    bad: bool = False


def entry(path: str, text: str) -> Entry:
    """A type 1 entry. No text is an error: keys that are not known are ignored."""
    said: dict[str, list[str]] = {}
    first = 0
    for number, row in enumerate(text.split("\n"), 1):
        key, _, value = row.strip().replace("\t", " ").partition(" ")
        if key and not key.startswith("#"):
            said.setdefault(key, []).append(value.strip())
            if key == "options":
                first = first or number
    name = path.rpartition("/")[2].removesuffix(".conf")
    ident, _, tries = name.rpartition("+")

    def last(key: str) -> str:
        return said.get(key, [""])[-1]

    counted = bool(ident) and all(part.isdecimal() for part in tries.split("-", 1))
    return Entry(
        id=ident if counted else name,
        path=path,
        line=first or 1,
        title=last("title"),
        linux=last("linux") or last("efi") or last("uki"),
        initrd=said.get("initrd", [""])[-1],
        options=" ".join(said.get("options", ())),
        version=last("version"),
        sort_key=last("sort-key"),
        machine_id=last("machine-id"),
        # A boot counter that has come to zero: the entry is bad (systemd's AUTOMATIC_BOOT_ASSESSMENT).
        bad=counted and not tries.partition("-")[0].strip("0"),
    )


def loader_conf(text: str) -> dict[str, tuple[str, int]]:
    """loader.conf(5): each key with its last value and that one's line."""
    said: dict[str, tuple[str, int]] = {}
    for number, row in enumerate(text.split("\n"), 1):
        key, _, value = row.strip().replace("\t", " ").partition(" ")
        if key and not key.startswith("#"):
            said[key] = (value.strip(), number)
    return said


def ordered(entries: Sequence[Entry], *, by_file: bool = False) -> list[Entry]:
    """As the menu shows them, the newest first: systemd-boot's order, or GRUB's, which goes by the names."""
    import functools  # noqa: PLC0415 -- only a machine with such entries needs it

    compared = _by_file if by_file else _as_systemd_boot
    return sorted(entries, key=functools.cmp_to_key(compared))


def _by_file(left: Entry, right: Entry) -> int:
    return -compare(left.id, right.id)


def _as_systemd_boot(left: Entry, right: Entry) -> int:
    if left.bad != right.bad:
        return 1 if left.bad else -1
    if bool(left.sort_key) != bool(right.sort_key):
        return -1 if left.sort_key else 1
    if left.sort_key and (left.sort_key, left.machine_id) != (right.sort_key, right.machine_id):
        return -1 if (left.sort_key, left.machine_id) < (right.sort_key, right.machine_id) else 1
    by_version = -compare(left.version, right.version) if left.sort_key else 0
    return by_version or _by_file(left, right)


_DROPPED = re.compile(r"[^A-Za-z0-9~^.-]*")
_DIGITS = re.compile(r"[0-9]*")
_LETTERS = re.compile(r"[A-Za-z]*")


def compare(left: str, right: str) -> int:
    """-1, 0 or 1, as strverscmp_improved compares two versions.

    A segment is digits or letters; `~` before it makes it the oldest, then come the end, `-`, `^`, `.`
    and no prefix; what is none of these only separates. Only the first 256 characters are looked at.
    """
    left, right = left[:256], right[:256]
    while True:
        left, right = _without(_DROPPED, left), _without(_DROPPED, right)
        for prefix in "~", "", "-", "^", ".":
            if not prefix:
                if not left or not right:
                    return _sign(bool(left), bool(right))
            elif left.startswith(prefix) != right.startswith(prefix):
                return -1 if left.startswith(prefix) else 1
            elif left.startswith(prefix):
                left, right = left[1:], right[1:]
        kind = _DIGITS if left[:1].isdigit() or right[:1].isdigit() else _LETTERS
        one, other = _start(kind, left), _start(kind, right)
        left, right = left[len(one) :], right[len(other) :]
        if kind is _DIGITS:
            if not one or not other:
                return _sign(bool(one), bool(other))
            one, other = one.lstrip("0"), other.lstrip("0")
            if len(one) != len(other):
                return _sign(len(one), len(other))
        if one != other:
            return -1 if one < other else 1


def _start(kind: re.Pattern[str], text: str) -> str:
    match = kind.match(text)
    return match[0] if match else ""


def _without(kind: re.Pattern[str], text: str) -> str:
    return text[len(_start(kind, text)) :]


def _sign(left: int, right: int) -> int:
    return (left > right) - (left < right)
