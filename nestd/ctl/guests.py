# SPDX-License-Identifier: LGPL-2.1-or-later
"""launch, list, show, stop, kill and console: the commands that are about guests."""

from __future__ import annotations

import pwd
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from nestd.wire.library import Variant

from . import guestrender
from .client import CHANGE_LIMIT, Client
from .commands import MANAGER, MANAGER_PATH
from .screen import Screen
from .table import visible

GUEST = "org.nestd1.Guest"
_PROPERTIES = "org.freedesktop.DBus.Properties"
_OBJECTS = "org.freedesktop.DBus.ObjectManager"
_STOP_DEFAULT = 30  # seconds, as Stop has it
_YEAR_9999 = 253370764800 * 1_000_000  # µs; later times have no calendar here


def launch(given: Namespace, client: Client, screen: Screen) -> None:
    """Start a guest, say what it got, and attach to its console if that was asked for."""
    with screen.progress(f"Starting {visible(given.name)}") as tick:
        (path,) = client.call(
            *(MANAGER_PATH, MANAGER, "Launch", "sa{sv}", given.name, _options(given)),
            returns="o",
            limit=CHANGE_LIMIT,
            waiting=tick,
        )
    values = _guest(client, path)
    if given.json:
        screen.json(values)
        return
    (extension,) = client.call(MANAGER_PATH, _PROPERTIES, "Get", "ss", MANAGER, "Extension", returns="v")
    screen.say(guestrender.launched(values, extension, screen.style))
    if given.console:
        _attach(path, given.name, client, screen)


def list_guests(given: Namespace, client: Client, screen: Screen) -> None:
    """Print the guests, sorted by name."""
    (objects,) = client.call(MANAGER_PATH, _OBJECTS, "GetManagedObjects", returns="a{oa{sa{sv}}}")
    found = [_kebab(interfaces[GUEST]) for interfaces in objects.values() if GUEST in interfaces]
    found.sort(key=lambda values: str(values.get("name")))
    if given.json:
        screen.json(found)
    else:
        screen.say(guestrender.guests([_with_owner(values) for values in found], screen.style))


def show(given: Namespace, client: Client, screen: Screen) -> None:
    """Print everything about one guest."""
    values = _guest(client, _find(client, given.name))
    if given.json:
        screen.json(values)
    else:
        screen.say(guestrender.guest(_with_owner(values), _started(values.get("started")), screen.style))


def stop(given: Namespace, client: Client, screen: Screen) -> None:
    """Press the power button and wait."""
    options = {} if given.timeout is None else {"timeout": Variant("t", given.timeout)}
    limit = CHANGE_LIMIT + (_STOP_DEFAULT if given.timeout is None else given.timeout)
    path = _find(client, given.name)
    with screen.progress(f"Stopping {visible(given.name)}") as tick:
        client.call(path, GUEST, "Stop", "a{sv}", options, limit=limit, waiting=tick)


def kill(given: Namespace, client: Client, screen: Screen) -> None:
    """End a guest at once."""
    path = _find(client, given.name)
    with screen.progress(f"Ending {visible(given.name)}") as tick:
        client.call(path, GUEST, "Kill", limit=CHANGE_LIMIT, waiting=tick)


def console(given: Namespace, client: Client, screen: Screen) -> None:
    """Use a guest's serial console, what it said before first."""
    _attach(_find(client, given.name), given.name, client, screen)


def _attach(path: str, name: str, client: Client, screen: Screen) -> None:
    from .console import attach  # noqa: PLC0415 - the only command that needs terminal control

    (said,) = client.call(path, GUEST, "GetConsoleLog", returns="ay")
    descriptor = client.open(path, GUEST, "OpenConsole")
    screen.hint(f"This is the console of {visible(name)}; Ctrl-] leaves it.")
    escaped = attach(descriptor, said)
    screen.hint(f"\n{'Left' if escaped else 'The guest closed'} the console of {visible(name)}.")


def _find(client: Client, name: str) -> str:
    (path,) = client.call(MANAGER_PATH, MANAGER, "GetGuest", "s", name, returns="o")
    return str(path)


def _guest(client: Client, path: str) -> dict[str, Any]:
    (properties,) = client.call(path, _PROPERTIES, "GetAll", "s", GUEST, returns="a{sv}")
    return _kebab(properties)


def _kebab(properties: Mapping[str, Any]) -> dict[str, Any]:
    """`MissingFlags` → `missing-flags`, so that JSON has the same kind of keys everywhere."""
    return {
        "".join(f"-{c.lower()}" if c.isupper() else c for c in name).removeprefix("-"): value
        for name, value in properties.items()
    }


def _with_owner(values: Mapping[str, Any]) -> dict[str, Any]:
    owner = values.get("owner", "unknown")
    try:
        name = pwd.getpwuid(owner).pw_name if isinstance(owner, int) else owner
    except (KeyError, OverflowError):  # no such user, or no such number
        name = owner
    return {**values, "owner-name": name}


def _started(microseconds: object) -> str:
    if not isinstance(microseconds, int) or not 0 < microseconds < _YEAR_9999:
        return "unknown"
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(microseconds // 1_000_000))


def _options(given: Namespace) -> dict[str, Variant]:
    """Launch's options: only what was said, so that the defaults stay the daemon's."""
    said: Sequence[tuple[str, str, Any]] = (
        ("cpu", "s", given.cpu),
        ("cpu-features", "as", given.features or None),
        ("memory", "t", given.memory),
        ("vcpus", "u", given.vcpus),
        ("disks", "aa{sv}", [_disk(disk) for disk in given.disks] or None),
        ("kernel", "s", given.kernel),
        ("initrd", "s", given.initrd),
        ("append", "s", given.append),
        ("user", "s", given.user),
        ("require-nesting", "b", False if given.allow_no_nesting else None),
    )
    return {key: Variant(signature, value) for key, signature, value in said if value is not None}


def _disk(disk: Mapping[str, str | bool]) -> dict[str, Variant]:
    return {key: Variant("b" if isinstance(value, bool) else "s", value) for key, value in disk.items()}
