# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where strangers' words become typed values."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from nestd import errors
from nestd.bus.exported import Call
from nestd.model import Scope, Waiting
from nestd.wire.library import Variant

_WORDS = {
    "s": "a string",
    "b": "a boolean",
    "u": "an unsigned 32-bit number",
    "i": "a signed 32-bit number",
    "t": "an unsigned 64-bit number",
    "d": "a floating-point number",
    "o": "an object path",
    "as": "a list of strings",
    "ay": "bytes",
    "a{sv}": "a dictionary",
    "aa{sv}": "a list of dictionaries",
}
_SHOWN = 80
# Who may write the kernel command line: the names of nestd/nesting/loaders, which start-up does not load.
LOADERS = ("grub", "kernel-install", "grubby", "rpm-ostree", "ostree", "bootc")
_CHANGE_OPTIONS = MappingProxyType(
    {"scope": "s", "dry-run": "b", "when-idle": "b", "replace": "b", "loader": "s"}
)
_REVERT_OPTIONS = MappingProxyType({"dry-run": "b"})


class Change(NamedTuple):
    """What Enable, Disable or Revert was asked for. `waiting` is the change that it takes the place of.

    `replace`: what somebody else has put on the kernel command line may be taken away. `loader` is one of
    LOADERS; empty: it is found out.
    """

    scope: Scope
    dry_run: bool
    when_idle: bool = False
    waiting: Waiting | None = None
    replace: bool = False
    loader: str = ""


def options(given: Mapping[str, Variant], table: Mapping[str, str]) -> dict[str, Any]:
    """The plain values of an a{sv}, held against a table of name and signature.

    Of an option that is given twice, the last counts. InvalidArgs: one is not in the table, or has another
    type; the text says which are known, and which type is wanted.
    """
    values = {}
    for name, value in given.items():
        if name not in table:
            known = ", ".join(sorted(table)) or "none"
            raise errors.InvalidArgs(f"There is no option {_show(name)}. Known options: {known}.")
        wanted = table[name]
        if value.signature != wanted:
            words = f"{_WORDS[wanted]} ({wanted})" if wanted in _WORDS else f"of type {wanted}"
            raise errors.InvalidArgs(
                f"The option {name} must be {words}, not of type {_show(value.signature)}."
            )
        values[name] = value.value
    return values


def change(call: Call, waiting: Waiting | None = None) -> Change:
    """`validate` for Enable and Disable, while `waiting` waits. Raises InvalidArgs."""
    given = options(call.arguments[0], _CHANGE_OPTIONS)
    scope = given.get("scope", Scope.BOTH)
    if scope not in set(Scope):
        known = ", ".join(Scope)
        raise errors.InvalidArgs(f"The option scope must be one of {known}, not {_show(scope)}.")
    loader, replace = given.get("loader", ""), given.get("replace", False)
    if "loader" in given and loader not in LOADERS:
        known = ", ".join(LOADERS)
        raise errors.InvalidArgs(f"The option loader must be one of {known}, not {_show(loader)}.")
    if scope == Scope.RUNTIME and (loader or replace):
        raise errors.InvalidArgs(
            "The options loader and replace are about the kernel command line of the next boot, which the "
            "scope runtime leaves alone: leave them out, or choose the scope boot or both."
        )
    dry_run, when_idle = given.get("dry-run", False), given.get("when-idle", False)
    return Change(Scope(scope), dry_run, when_idle, waiting, replace, loader)


def revert(call: Call, waiting: Waiting | None = None) -> Change:
    """`validate` for Revert, while `waiting` waits. Raises InvalidArgs."""
    given = options(call.arguments[0], _REVERT_OPTIONS)
    return Change(Scope.BOOT, given.get("dry-run", False), waiting=waiting)


def _show(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")
