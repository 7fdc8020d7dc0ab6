# SPDX-License-Identifier: LGPL-2.1-or-later
"""launch, list, show, stop, kill and console: the commands that are about guests."""

from __future__ import annotations

import os
import sys
from argparse import Namespace

from . import guestrender, launchoptions
from .client import CHANGE_LIMIT, Client
from .commands import MANAGER, MANAGER_PATH
from .owned import PROPERTIES, every, find, make, moment, read, stopping, with_owner
from .screen import Screen
from .stopping import StopWatch
from .table import visible

GUEST = "org.nestd1.Guest"
_OVER = ("exited", "failed")


def launch(given: Namespace, client: Client, screen: Screen) -> None:
    """Start a guest, say what it got, and attach to its console if that was asked for."""
    what = f"Starting {visible(given.name)}"
    path = make("Launch", given.name, launchoptions.options(given), what, client, screen)
    values = read(path, GUEST, client)
    if given.json:
        screen.json(values)
        return
    screen.say(guestrender.launched(values, _extension(client), screen.style))
    if given.console:
        _attach(path, given, client, screen)


def list_guests(given: Namespace, client: Client, screen: Screen) -> None:
    """Print the guests, sorted by name: those that run, or also those that have ended lately."""
    found = [values for values in every(GUEST, client) if given.all or values.get("state") not in _OVER]
    if given.json:
        screen.json(found)
    else:
        screen.say(guestrender.guests([with_owner(values, given) for values in found], screen.style))


def show(given: Namespace, client: Client, screen: Screen) -> None:
    """Print everything about one guest."""
    values = read(find("GetGuest", given.name, client), GUEST, client)
    if given.json:
        screen.json(values)
        return
    started, ended = (moment(values.get(key)) for key in ("started", "ended"))
    screen.say(
        guestrender.guest(with_owner(values, given), _extension(client), (started, ended), screen.style)
    )


def stop(given: Namespace, client: Client, screen: Screen) -> None:
    """Press the power button and wait, with what is done and for how long yet on the terminal."""
    options, limit = stopping(given)
    path = find("GetGuest", given.name, client)
    watch = StopWatch(path, given.name, "" if screen.quiet else f"Stopping {visible(given.name)}")
    if screen.terminal:
        client.listen(watch.hear)
        # It may be under way already.
        (known,) = client.call(path, PROPERTIES, "GetAll", "s", GUEST, returns="a{sv}")
        watch.know(known)
    with screen.progress(watch.words) as tick:
        client.call(path, GUEST, "Stop", "a{sv}", options, limit=limit, waiting=tick)


def kill(given: Namespace, client: Client, screen: Screen) -> None:
    """End a guest at once."""
    path = find("GetGuest", given.name, client)
    with screen.progress(f"Ending {visible(given.name)}") as tick:
        client.call(path, GUEST, "Kill", limit=CHANGE_LIMIT, waiting=tick)


def console(given: Namespace, client: Client, screen: Screen) -> None:
    """Use a guest's serial console, what it said before first."""
    _attach(find("GetGuest", given.name, client), given, client, screen)


def _attach(path: str, given: Namespace, client: Client, screen: Screen) -> None:
    from .console import ESCAPE, attach  # noqa: PLC0415 - the only command that needs terminal control

    escape, name = given.escape or ESCAPE, visible(given.name)
    (said,) = client.call(path, GUEST, "GetConsoleLog", returns="ay")
    descriptor = client.open(path, GUEST, "OpenConsole")
    window = _window()
    screen.hint(f"This is the console of {name}; Ctrl-{chr(escape[0] + 64)} leaves it.{window}")
    escaped = attach(descriptor, said, escape)
    # Only now: in the middle it would be written into what the guest shows.
    resized = "" if (now := _window()) == window else now
    screen.hint(f"\n{'Left' if escaped else 'The guest closed'} the console of {name}.{resized}")


def _window() -> str:
    """What a guest could be told of this terminal's size, which a serial line does not carry."""
    if sys.stdin is None or not sys.stdin.isatty():
        return ""
    columns, rows = os.get_terminal_size(sys.stdin.fileno())
    return f" This window, as it is to be told there: stty rows {rows} columns {columns}" if columns else ""


def _extension(client: Client) -> str:
    (extension,) = client.call(MANAGER_PATH, PROPERTIES, "Get", "ss", MANAGER, "Extension", returns="v")
    return str(extension)
