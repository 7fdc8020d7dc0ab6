# SPDX-License-Identifier: LGPL-2.1-or-later
"""launch, list, show, stop, kill and console: the commands that are about guests."""

from __future__ import annotations

import os
import pwd
import sys
import time
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from nestd.wire.library import Variant

from . import guestrender, launchoptions
from .client import CHANGE_LIMIT, Client
from .commands import MANAGER, MANAGER_PATH
from .screen import Screen
from .stopping import StopWatch
from .table import visible

GUEST = "org.nestd1.Guest"
_PROPERTIES = "org.freedesktop.DBus.Properties"
_OBJECTS = "org.freedesktop.DBus.ObjectManager"
_STOP_DEFAULT = 30  # seconds, as Stop has it
_OVER = ("exited", "failed")
_YEAR_9999 = 253370764800 * 1_000_000  # µs; later times have no calendar here


def launch(given: Namespace, client: Client, screen: Screen) -> None:
    """Start a guest, say what it got, and attach to its console if that was asked for."""
    with screen.progress(f"Starting {visible(given.name)}") as tick:
        (path,) = client.call(
            *(MANAGER_PATH, MANAGER, "Launch", "sa{sv}", given.name, launchoptions.options(given)),
            returns="o",
            limit=CHANGE_LIMIT,
            waiting=tick,
        )
    values = _guest(client, path)
    if given.json:
        screen.json(values)
        return
    screen.say(guestrender.launched(values, _extension(client), screen.style))
    if given.console:
        _attach(path, given, client, screen)


def list_guests(given: Namespace, client: Client, screen: Screen) -> None:
    """Print the guests, sorted by name: those that run, or also those that have ended lately."""
    (objects,) = client.call(MANAGER_PATH, _OBJECTS, "GetManagedObjects", returns="a{oa{sa{sv}}}")
    found = [kebab(interfaces[GUEST]) for interfaces in objects.values() if GUEST in interfaces]
    found = [values for values in found if given.all or values.get("state") not in _OVER]
    found.sort(key=lambda values: str(values.get("name")))
    if given.json:
        screen.json(found)
    else:
        screen.say(guestrender.guests([with_owner(values) for values in found], screen.style))


def show(given: Namespace, client: Client, screen: Screen) -> None:
    """Print everything about one guest."""
    values = _guest(client, _find(client, given.name))
    if given.json:
        screen.json(values)
        return
    started, ended = (moment(values.get(key)) for key in ("started", "ended"))
    screen.say(guestrender.guest(with_owner(values), _extension(client), (started, ended), screen.style))


def stop(given: Namespace, client: Client, screen: Screen) -> None:
    """Press the power button and wait, with what is done and for how long yet on the terminal."""
    options = {} if given.timeout is None else {"timeout": Variant("t", given.timeout)}
    limit = CHANGE_LIMIT + (_STOP_DEFAULT if given.timeout is None else given.timeout)
    path = _find(client, given.name)
    watch = StopWatch(path, given.name, "" if screen.quiet else f"Stopping {visible(given.name)}")
    if screen.terminal:
        client.listen(watch.hear)
        # It may be under way already.
        (known,) = client.call(path, _PROPERTIES, "GetAll", "s", GUEST, returns="a{sv}")
        watch.know(known)
    with screen.progress(watch.words) as tick:
        client.call(path, GUEST, "Stop", "a{sv}", options, limit=limit, waiting=tick)


def kill(given: Namespace, client: Client, screen: Screen) -> None:
    """End a guest at once."""
    path = _find(client, given.name)
    with screen.progress(f"Ending {visible(given.name)}") as tick:
        client.call(path, GUEST, "Kill", limit=CHANGE_LIMIT, waiting=tick)


def console(given: Namespace, client: Client, screen: Screen) -> None:
    """Use a guest's serial console, what it said before first."""
    _attach(_find(client, given.name), given, client, screen)


def _attach(path: str, given: Namespace, client: Client, screen: Screen) -> None:
    from .console import ESCAPE, attach  # noqa: PLC0415 - the only command that needs terminal control

    escape, name = given.escape or ESCAPE, visible(given.name)
    (said,) = client.call(path, GUEST, "GetConsoleLog", returns="ay")
    descriptor = client.open(path, GUEST, "OpenConsole")
    screen.hint(f"This is the console of {name}; Ctrl-{chr(escape[0] + 64)} leaves it.{_window()}")
    escaped = attach(descriptor, said, escape)
    screen.hint(f"\n{'Left' if escaped else 'The guest closed'} the console of {name}.")


def _window() -> str:
    """What a guest could be told of this terminal's size, which a serial line does not carry."""
    if sys.stdin is None or not sys.stdin.isatty():
        return ""
    columns, rows = os.get_terminal_size(sys.stdin.fileno())
    return f" This window, as it is to be told there: stty rows {rows} columns {columns}" if columns else ""


def _extension(client: Client) -> str:
    (extension,) = client.call(MANAGER_PATH, _PROPERTIES, "Get", "ss", MANAGER, "Extension", returns="v")
    return str(extension)


def _find(client: Client, name: str) -> str:
    (path,) = client.call(MANAGER_PATH, MANAGER, "GetGuest", "s", name, returns="o")
    return str(path)


def _guest(client: Client, path: str) -> dict[str, Any]:
    (properties,) = client.call(path, _PROPERTIES, "GetAll", "s", GUEST, returns="a{sv}")
    return kebab(properties)


def kebab(properties: Mapping[str, Any]) -> dict[str, Any]:
    """`MissingFlags` → `missing-flags`, so that JSON has the same kind of keys everywhere."""
    return {
        "".join(f"-{c.lower()}" if c.isupper() else c for c in name).removeprefix("-"): value
        for name, value in properties.items()
    }


def with_owner(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, and `owner-name`: the account's name, or the number where there is none."""
    owner = values.get("owner", "unknown")
    try:
        name = pwd.getpwuid(owner).pw_name if isinstance(owner, int) else owner
    except (KeyError, OverflowError):  # no such user, or no such number
        name = owner
    return {**values, "owner-name": name}


def moment(microseconds: object) -> str:
    """A time of the bus, microseconds since the epoch, as a person reads it."""
    if not isinstance(microseconds, int) or not 0 < microseconds < _YEAR_9999:
        return "unknown"
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(microseconds // 1_000_000))
