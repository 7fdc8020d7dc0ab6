# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a wish comes to on one command line, which of its words are then nestd's own; and words for sh."""

# No postponed annotations here: see nestd/model.py.

from collections.abc import Mapping
from typing import NamedTuple

from nestd.nesting.own import Own
from nestd.text.arguments import Edit, edited, has
from nestd.text.cmdline import words

_PLACE = "\1"


class Turn(NamedTuple):
    """The line as it will be.

    `added` are those words of the wish that nobody else had put there, `removed` those that are taken away,
    as they were written.
    """

    line: str
    added: tuple[str, ...]
    removed: tuple[str, ...]


def turned(line: str, own: Own, wanted: Edit) -> Turn:
    """From a line with what nestd has set until now (`own`) to one with what is wanted."""
    line = edited(line, Edit(remove=own.added))
    for word in own.removed:
        # As it was written: kvm-amd.nested=1 comes back beside kvm_amd.nested=1.
        if word not in words(line):
            line = edited(line, Edit((_PLACE,))).replace(_PLACE, word)
    return turn(line, wanted)


def turn(line: str, wanted: Edit) -> Turn:
    """From a line that has nothing of nestd's to one with what is wanted."""
    removed = [word for word in words(line) if any(has(word, one) for one in wanted.remove)]
    rest = edited(line, Edit(remove=wanted.remove))
    added = [word for word in wanted.add if not has(rest, word)]
    return Turn(edited(rest, Edit(wanted.add)), tuple(added), tuple(dict.fromkeys(removed)))


def mine(own: Own, name: str) -> Own:
    """The Own, if it is that back end's; else one as if nothing had been set."""
    return own if own.loader == name else own._replace(loader="", added=(), removed=(), notes={})


def settled(own: Own, name: str, turned: Turn, notes: Mapping[str, str]) -> Own:
    """The Own afterwards: of that back end where something of its is there, else of none."""
    if not turned.added and not turned.removed:
        return own._replace(loader="", added=(), removed=(), notes={})
    return own._replace(loader=name, added=turned.added, removed=turned.removed, notes=notes)


def quoted(*given: str) -> str:
    """The words as sh takes them for just these words."""
    return " ".join("'" + word.replace("'", "'\\''") + "'" for word in given)
