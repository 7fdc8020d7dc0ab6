# SPDX-License-Identifier: LGPL-2.1-or-later
"""Guests and labs alike: objects with a name and an owner, which are made, found, read and stopped."""

from __future__ import annotations

import pwd
import time
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from nestd.wire.library import Variant

from .client import CHANGE_LIMIT, Client
from .commands import MANAGER, MANAGER_PATH
from .screen import Screen

PROPERTIES = "org.freedesktop.DBus.Properties"
_OBJECTS = "org.freedesktop.DBus.ObjectManager"
_STOP_DEFAULT = 30  # seconds, as Stop has it
_YEAR_9999 = 253370764800 * 1_000_000  # µs; later times have no calendar here


def make(
    member: str, name: str, options: Mapping[str, Variant], what: str, client: Client, screen: Screen
) -> str:
    """The path of what Launch or CreateLab has made; `what` is said meanwhile."""
    with screen.progress(what) as tick:
        (path,) = client.call(
            *(MANAGER_PATH, MANAGER, member, "sa{sv}", name, options),
            returns="o",
            limit=CHANGE_LIMIT,
            waiting=tick,
        )
    return str(path)


def find(member: str, name: str, client: Client) -> str:
    """The path that GetGuest or GetLab gives."""
    (path,) = client.call(MANAGER_PATH, MANAGER, member, "s", name, returns="o")
    return str(path)


def read(path: str, interface: str, client: Client) -> dict[str, Any]:
    """All properties of one."""
    (properties,) = client.call(path, PROPERTIES, "GetAll", "s", interface, returns="a{sv}")
    return kebab(properties)


def every(interface: str, client: Client) -> list[dict[str, Any]]:
    """Those of all that there are, sorted by name."""
    (objects,) = client.call(MANAGER_PATH, _OBJECTS, "GetManagedObjects", returns="a{oa{sa{sv}}}")
    found = [kebab(interfaces[interface]) for interfaces in objects.values() if interface in interfaces]
    return sorted(found, key=lambda values: str(values.get("name")))


def stopping(given: Namespace) -> tuple[dict[str, Variant], float]:
    """The options of Stop, and how long it may take."""
    if given.timeout is None:
        return {}, CHANGE_LIMIT + _STOP_DEFAULT
    return {"timeout": Variant("t", given.timeout)}, CHANGE_LIMIT + given.timeout


def kebab(properties: Mapping[str, Any]) -> dict[str, Any]:
    """`MissingFlags` → `missing-flags`, so that JSON has the same kind of keys everywhere."""
    return {
        "".join(f"-{c.lower()}" if c.isupper() else c for c in name).removeprefix("-"): value
        for name, value in properties.items()
    }


def with_owner(values: Mapping[str, Any], given: Namespace) -> dict[str, Any]:
    """The values, and `owner-name`: the account's name, or the number where there is none, or not here."""
    owner = values.get("owner", "unknown")
    here = given.host is None and given.machine is None
    try:
        name = pwd.getpwuid(owner).pw_name if here and isinstance(owner, int) else owner
    except (KeyError, OverflowError):  # no such user, or no such number
        name = owner
    return {**values, "owner-name": name}


def moment(microseconds: object) -> str:
    """A time of the bus, microseconds since the epoch, as a person reads it."""
    if not isinstance(microseconds, int) or not 0 < microseconds < _YEAR_9999:
        return "unknown"
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(microseconds // 1_000_000))
