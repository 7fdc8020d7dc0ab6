# SPDX-License-Identifier: LGPL-2.1-or-later
"""The entries that kernel-install has made for this system, and the file it makes the next ones of.

An entry is $BOOT/loader/entries/TOKEN-VERSION[+TRIES].conf, has one row of options, and its kernel is
TOKEN/VERSION/linux. Source: kernel-install and 90-loaderentry.install of systemd 252 and 257.
"""

# No postponed annotations here: see nestd/model.py.

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from nestd.host.efi import PARTITIONS
from nestd.host.entrytoken import tokens
from nestd.host.root import Root
from nestd.text import bls, cmdline
from nestd.text.arguments import Edit, edited, has

TEMPLATE = "/etc/kernel/cmdline"
SHIPPED = "/usr/lib/kernel/cmdline"
ENTRIES = "loader/entries"
_ROW = re.compile(r"([ \t]*options[ \t]+)(.*)")
_KERNEL = re.compile(r"(?:.*/)?([^/]+)/([^/]+)/linux")
_OWN_ARGUMENT = "systemd.machine_id="


class Made(NamedTuple):
    """An entry that kernel-install made: its file, the same without boot counting, its row of options."""

    path: str
    key: str
    row: str
    token: str


def made(root: Root) -> Iterator[Made]:
    """Those of this system. Raises OSError."""
    own = tokens(root)
    for partition in PARTITIONS:
        folder = f"{partition}/{ENTRIES}"
        for name in root.files(folder):
            path = f"{folder}/{name}"
            if not name.endswith(".conf") or (text := root.read(path)) is None:
                continue
            entry = bls.entry(path, text)
            kernel = _KERNEL.fullmatch(entry.linux)
            rows = [row for row in text.split("\n") if _ROW.fullmatch(row)]
            mine = kernel and kernel[1] in own and entry.id == f"{kernel[1]}-{kernel[2]}"
            if mine and kernel and len(rows) == 1:
                yield Made(path, f"{folder}/{entry.id}.conf", rows[0], kernel[1])


def row_edited(row: str, edit: Edit) -> str:
    """An entry's row of options, edited."""
    match = _ROW.fullmatch(row)
    return row if match is None else match[1] + edited(match[2], edit)


def row_has(row: str, word: str) -> bool:
    """Whether the options have the word."""
    match = _ROW.fullmatch(row)
    return match is not None and has(match[2], word)


def template_edited(text: str, edit: Edit) -> str:
    """The text of /etc/kernel/cmdline, edited: words come into its first row that says something.

    From systemd 254 on, rows that begin with `#` are comments.
    """
    rows = [edited(row, Edit(remove=edit.remove)) if _says(row) else row for row in text.split("\n")]
    for word in edit.add:
        at = next((number for number, row in enumerate(rows) if _says(row)), None)
        if at is None:
            rows = [*rows[:-1], *([rows[-1]] if rows[-1] else []), word, ""]
        elif not any(_says(row) and has(row, word) for row in rows):
            rows[at] = edited(rows[at], Edit((word,)))
    return "\n".join(rows)


def template_has(text: str, word: str) -> bool:
    """Whether one of its rows has the word."""
    return any(_says(row) and has(row, word) for row in text.split("\n"))


def _says(row: str) -> bool:
    return bool(row.strip()) and not row.lstrip().startswith("#")


def theirs(had: Edit, before: str, has_word: Callable[[str, str], bool]) -> Edit:
    """What takes nestd's `had` back where somebody has changed what was `before`: what nestd did there."""
    gone = tuple(word for word in had.remove if has_word(before, word))
    return Edit(gone, tuple(word for word in had.add if not has_word(before, word)))


def seed(row: str, token: str) -> str:
    """A text for /etc/kernel/cmdline where there is none, of the row of options of what is booted.

    Without it, kernel-install takes the running kernel's command line, which has what was typed into the menu
    for once; and the argument that it puts behind by itself is left out.
    """
    match = _ROW.fullmatch(row)
    words = cmdline.words(match[2]) if match else ()
    return " ".join(word for word in words if word != _OWN_ARGUMENT + token) + "\n"
