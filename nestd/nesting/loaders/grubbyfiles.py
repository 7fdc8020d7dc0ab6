# SPDX-License-Identifier: LGPL-2.1-or-later
"""Boot loader entries, and the files that later ones are made from, as texts: as they were, as they shall be.

`by_grubby` is what grubby makes of an entry: it moves what it adds to the end, takes away all of the same
name, and writes one blank between words (grubby-bls, update_args and set_bls_value).
"""

# No postponed annotations here: see nestd/model.py.

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from nestd.host.bootloader import KERNEL_CMDLINE
from nestd.nesting.own import Own
from nestd.text.arguments import Edit, edited, has
from nestd.text.cmdline import words

ENTRIES = "/boot/loader/entries"
DEFAULTS = "/etc/default/grub"
MADE = "made by nestd of: "
_OPTIONS = re.compile(r"^options[ \t]+(.*)$", re.MULTILINE)
_PLAIN = re.compile(r'^(GRUB_CMDLINE_LINUX=")([^"\\$`]*)(")[ \t]*$', re.MULTILINE)


class Asked(NamedTuple):
    """What grubby is asked for one entry; nothing of both: it is left alone."""

    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()


class Target(NamedTuple):
    """How the files shall be: each path with its text; None: no such file. And the Own that goes with it."""

    texts: dict[str, str | None]
    own: Own


def options(text: str) -> str:
    """The arguments of an entry: all lines together."""
    return " ".join(match[1] for match in _OPTIONS.finditer(text))


def linux(text: str) -> str:
    """The kernel that an entry boots, as it is written."""
    return next((row.split(None, 1)[1].strip() for row in text.split("\n") if row.startswith("linux ")), "")


def by_grubby(text: str, asked: Asked) -> str:
    """An entry as grubby leaves it."""
    left = options(text).split()
    for word in asked.remove:
        if word in left:
            left.remove(word)
    names = {word.partition("=")[0] for word in asked.add}
    left = [word for word in left if word.partition("=")[0] not in names]
    row = " ".join(["options", *left, *asked.add])
    return _OPTIONS.sub(lambda _: row, text)


def target(now: Mapping[str, str], own: Own, wanted: Edit, seed: str) -> Target:
    """How the files shall be that are `now` so, with what nestd has set until now (`own`).

    `seed` is the entry that /etc/kernel/cmdline is made of where that is missing; empty: it is not made.
    """
    base = {path: text for path, old in now.items() if (text := _without(path, old, own)) is not None}
    found: dict[str, str | None] = dict.fromkeys(now)
    notes = dict(base)
    if not wanted.empty and KERNEL_CMDLINE not in base:
        if KERNEL_CMDLINE in now:  # made by nestd
            start = own.notes[MADE + KERNEL_CMDLINE].strip()
        else:
            start = " ".join(word for word in words(options(base.get(seed, ""))) if not word.startswith("$"))
        if start and edited(start, wanted) != start:
            base[KERNEL_CMDLINE] = notes[MADE + KERNEL_CMDLINE] = start + "\n"
    found |= {path: _with(path, text, wanted) for path, text in base.items()}
    changed = [path for path, text in base.items() if found[path] != text]
    lines = [line(path, base[path]) for path in changed]
    added = tuple(word for word in wanted.add if not all(has(one, word) for one in lines))
    gone = (one for given in lines for one in words(given) if any(has(one, word) for word in wanted.remove))
    removed = tuple(dict.fromkeys(gone))
    if not changed:
        return Target(found, own._replace(loader="", added=(), removed=(), notes={}))
    return Target(found, own._replace(loader="grubby", added=added, removed=removed, notes=notes))


def asked_for(now: str, then: str) -> Asked:
    """What grubby has to be asked to turn one entry into the other, as to its words."""
    there, wished = words(options(now)), words(options(then))
    return Asked(_less(wished, there), _less(there, wished))


def _less(some: Iterable[str], others: Iterable[str]) -> tuple[str, ...]:
    left = list(others)
    found = []
    for word in some:
        if word in left:
            left.remove(word)
        else:
            found.append(word)
    return tuple(found)


def line(path: str, text: str) -> str:
    """The command line that is in a file."""
    if path == DEFAULTS:
        found = _PLAIN.findall(text)
        return found[0][1] if len(found) == 1 else ""
    return text if path == KERNEL_CMDLINE else options(text)


def _with(path: str, text: str, wanted: Edit) -> str:
    """A file that has nothing of nestd's, with what is wanted."""
    if path == KERNEL_CMDLINE:
        return edited(text, wanted)
    if path == DEFAULTS:
        if len(_PLAIN.findall(text)) != 1:
            return text  # whatever it does, grub2-mkconfig of today leaves the entries alone
        return _PLAIN.sub(lambda match: match[1] + edited(match[2], wanted) + match[3], text)
    given = options(text)
    if not given or _contradicts(given, wanted):
        return text
    add = tuple(word for word in wanted.add if not has(given, word))
    remove = tuple(one for one in words(given) if any(has(one, word) for word in wanted.remove))
    return by_grubby(text, Asked(add, remove)) if add or remove else text


def _contradicts(given: str, wanted: Edit) -> bool:
    """Whether somebody gave this kernel another value, which is not to be taken away."""
    names = {_name(word) for word in wanted.add}
    kept = words(edited(given, Edit(remove=(*wanted.add, *wanted.remove))))
    return any(_name(word) in names for word in kept)


def _name(word: str) -> str:
    return word.partition("=")[0].replace("-", "_")


def _without(path: str, text: str, own: Own) -> str | None:
    """A file without what nestd has set; None: nestd made it, and nobody has touched it since."""
    if not own.added and not own.removed:
        return text
    found = own.notes.get(path, own.notes.get(MADE + path))
    if found is not None and _with(path, found, Edit(own.added, own.removed)) == text:
        return found if path in own.notes else None
    add, remove = back(path, found or "", Edit(own.added, own.removed))
    if path.startswith(ENTRIES):
        given = options(text)
        add = tuple(word for word in add if not has(given, word))
        remove = tuple(one for one in words(given) if any(has(one, word) for word in remove))
        return by_grubby(text, Asked(add, remove)) if add or remove else text
    return _with(path, text, Edit(add, remove))


def back(path: str, before: str, edit: Edit) -> Asked:
    """What takes an edit back from a file that was `before`, and has been changed by others since."""
    given = line(path, before)
    return Asked(
        tuple(word for word in edit.remove if has(given, word)),
        tuple(word for word in edit.add if not has(given, word)),
    )
