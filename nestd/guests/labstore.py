# SPDX-License-Identifier: LGPL-2.1-or-later
"""What nestd remembers of labs, over restarts and reboots: JSON, for root alone."""

from __future__ import annotations

import base64
import errno
import json
import os
import re
from collections.abc import Mapping
from typing import Any

from nestd import log
from nestd.errors import InvalidArgs, Malformed
from nestd.guests import labplaces, places
from nestd.guests.lab import Lab, check
from nestd.host import files
from nestd.host.root import Root

_BYTES = "base64"
_LIMIT = 1 << 20  # bytes, host/files.py reads no more
_ACTIVITIES = ("", "create", "start", "remove")


def save(root: Root, lab: Lab) -> None:
    """Keep a lab. OSError; EFBIG: it is more than can be read again."""
    text = json.dumps(lab._asdict(), default=_coded)
    if len(text) > _LIMIT:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), labplaces.record(lab.name))
    files.make_folder(root, places.LABS, 0o700)
    files.replace(root, labplaces.record(lab.name), text, 0o600)


def kept(root: Root, name: str) -> bool:
    """Whether a record of that name lies there, be it one that cannot be read."""
    return os.path.lexists(root.path(labplaces.record(name)))


def load_all(root: Root) -> tuple[Lab, ...]:
    """All labs, by name. What is no lab's record is left alone, and said to be there. OSError."""
    found = []
    for file in files.names(root, places.LABS):
        name, dot, kind = file.rpartition(".")
        if f"{dot}{kind}" != ".json" or not re.fullmatch(labplaces.NAME_PATTERN, name):
            continue
        try:
            found.append(parse(name, files.read(root, labplaces.record(name)) or ""))
        except (Malformed, OSError) as error:
            log.error(f"{labplaces.record(name)}: {error}. This lab is left out, and what it has left alone.")
    return tuple(found)


def remove(root: Root, name: str) -> None:
    """Forget a lab; none is fine. OSError."""
    files.remove(root, labplaces.record(name))


def parse(name: str, text: str) -> Lab:
    """A lab from its text. Malformed: it is half, or another version's."""
    try:
        value = json.loads(text, object_hook=_decoded)
    except (ValueError, TypeError, RecursionError) as error:
        raise Malformed("no JSON") from error
    if not isinstance(value, dict) or value.keys() != set(Lab._fields):
        raise Malformed("a record with other fields than this version's")
    begun = value["begun"]
    lab = Lab(**{**value, "begun": tuple(begun) if isinstance(begun, list) else ()})
    joined = lab.joined.items() if isinstance(lab.joined, dict) else [("", None)]
    right = (
        lab.name == name,
        all(isinstance(text, str) for text in (lab.user, lab.subnet)),
        all(type(number) is int for number in (lab.owner, lab.nodes, lab.created, *lab.begun)),
        all(type(number) is int for _, number in joined),
        isinstance(lab.options, dict),
        isinstance(begun, list),
        lab.doing in _ACTIVITIES,
    )
    if not all(right):
        raise Malformed("a record with values of other kinds than this version's")
    try:
        check(name, {"nodes": lab.nodes, "subnet": lab.subnet})
    except InvalidArgs as error:
        raise Malformed(f"a record of a lab that cannot be ({error})") from error
    return lab


def _coded(value: object) -> Mapping[str, str]:
    if isinstance(value, bytes):
        return {_BYTES: base64.b64encode(value).decode()}
    raise TypeError(f"{type(value)} cannot be remembered")


def _decoded(value: dict[str, Any]) -> Any:
    # Only where a string is behind it: a guest that has joined may be called so, too.
    packed = value.keys() == {_BYTES} and isinstance(value[_BYTES], str)
    return base64.b64decode(value[_BYTES]) if packed else value
