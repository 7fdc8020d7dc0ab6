# SPDX-License-Identifier: LGPL-2.1-or-later
"""What nestd has set beyond its drop-in, so that only that is taken back: /var/lib/nestd/boot.

It is written before anything else of a change. Beside it lies /var/lib/nestd/undo, a script for whoever has
to take all back when nestd itself is gone.
"""

# No postponed annotations here: see nestd/model.py.

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from nestd.errors import Malformed
from nestd.host import files
from nestd.host.root import Root
from nestd.model import Nesting
from nestd.nesting import dropin

PATH = "/var/lib/nestd/boot"
SCRIPT = "/var/lib/nestd/undo"
_SCRIPT = f"""\
#!/bin/sh
# Takes back all that nestd has set for the next boots. It is for when nestd itself is gone (the purge of its
# package runs it); else say `nestctl revert`. Twice is as once.
set -e
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
umask 022
rm -f {dropin.PATH}
"""
_NOTHING: Mapping[str, str] = MappingProxyType({})


class Own(NamedTuple):
    """The arguments that the back end `loader` was given, and whose they were.

    `nested` is what was asked for where only the command line can say it (a driver that is built in), else
    None. `added` are nestd's own arguments, `removed` somebody else's that were taken away (the option
    replace). `notes` are the back end's own; `renewals` are images, each with the command that made it anew.
    """

    nested: Nesting | None = None
    loader: str = ""
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    notes: Mapping[str, str] = _NOTHING
    renewals: tuple[tuple[str, ...], ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to be taken back."""
        return not (self.nested or self.added or self.removed or self.notes or self.renewals)


def read(root: Root) -> Own:
    """What nestd has set. OSError where the record cannot be read, Malformed where it makes no sense."""
    text = files.read(root, PATH)
    return Own() if text is None else parsed(text)


def text(own: Own) -> str | None:
    """The record's text; None for an empty one, which has no file."""
    if own.empty:
        return None
    import json  # noqa: PLC0415 -- only where something is set

    return json.dumps({**own._asdict(), "notes": dict(own.notes)}, indent=1) + "\n"


def parsed(raw: str) -> Own:
    """What the record's text says. Malformed."""
    import json  # noqa: PLC0415 -- only where something is set

    try:
        value: Any = json.loads(raw)
    except (ValueError, RecursionError):
        value = None
    match value:
        case {
            "nested": None | "on" | "off" as nested,
            "loader": str(loader),
            "added": list(added),
            "removed": list(removed),
            "notes": dict(notes),
            "renewals": list(renewals),
        } if all(isinstance(one, str) for one in (*added, *removed, *notes.values())) and all(
            isinstance(argv, list) and len(argv) > 1 and all(isinstance(word, str) for word in argv)
            for argv in renewals
        ):
            return Own(
                Nesting(nested) if nested else None,
                loader,
                tuple(added),
                tuple(removed),
                notes,
                tuple(tuple(argv) for argv in renewals),
            )
    raise Malformed("a record of what nestd set with other fields than this version's")


def script(own: Own, lines: str) -> str | None:
    """What /var/lib/nestd/undo says; `lines` are the back end's. None where the drop-in is all there is."""
    if own.empty:
        return None
    from shlex import join, quote  # noqa: PLC0415 -- only where something is set

    # The image of a kernel that is gone meanwhile is nobody's.
    made = "".join(f"[ ! -e {quote(image)} ] || {join(argv)}\n" for image, *argv in own.renewals)
    return _SCRIPT + lines + made
