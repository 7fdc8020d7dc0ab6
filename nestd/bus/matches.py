# SPDX-License-Identifier: LGPL-2.1-or-later
"""Match rules, and the signals that they let through (D-Bus specification, "Match Rules").

The bus filters broadcast signals by the rules that were added; anybody can still send any signal
straight to us. So each one is held against the rules again, its sender above all.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from nestd.wire.header import Header

BUS = "org.freedesktop.DBus"
_PAIR = re.compile(r"\s*([a-z0-9_]+)='([^']*)'\s*(?:,|$)")
_ARGUMENTS = {f"arg{number}": number for number in range(64)}
_KEYS = frozenset({"type", "sender", "interface", "member", "path", "path_namespace", *_ARGUMENTS})


class Signal(NamedTuple):
    """A signal that came in: who sent it (unique name), and what it says."""

    sender: str
    path: str
    interface: str
    member: str
    body: Sequence[Any]


class Rule(NamedTuple):
    """A match rule for signals: sender, and any of interface, member, path, path_namespace, arg0 to arg63."""

    text: str
    keys: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> "Rule":
        """ValueError: not of the form key='value',..., a key that is not known here, or no sender."""
        keys: dict[str, str] = {}
        position = 0
        while position < len(text):
            found = _PAIR.match(text, position)
            if found is None or found[1] not in _KEYS or found[1] in keys:
                raise ValueError(f"not a match rule that is understood here: {text!r}")
            keys[found[1]] = found[2]
            position = found.end()
        if keys.pop("type", "") != "signal" or not keys.get("sender"):
            raise ValueError(f"a rule must name the type signal and the sender: {text!r}")
        return cls(text, keys)

    @property
    def sender(self) -> str:
        """The name whose signals are wanted."""
        return self.keys["sender"]

    @property
    def watches_owner(self) -> bool:
        """Whether the sender is a well-known name, so that its owner must be known to judge a signal."""
        return self.sender != BUS and not self.sender.startswith(":")

    def fits(self, header: Header, owner: str) -> bool:
        """Whether the header of a signal fits; `owner` is the unique name that has the rule's sender."""
        keys = self.keys
        namespace = keys.get("path_namespace", "/")
        return (
            header.sender == owner != ""
            and keys.get("interface", header.interface) == header.interface
            and keys.get("member", header.member) == header.member
            and keys.get("path", header.path) == header.path
            and (namespace == "/" or f"{header.path}/".startswith(f"{namespace}/"))
        )

    def fits_body(self, body: Sequence[Any]) -> bool:
        """Whether the body fits, too."""
        wanted = ((_ARGUMENTS[key], value) for key, value in self.keys.items() if key in _ARGUMENTS)
        return all(number < len(body) and body[number] == value for number, value in wanted)
