# SPDX-License-Identifier: LGPL-2.1-or-later
"""status, enable and disable: the commands that are about the machine."""

from __future__ import annotations

from argparse import Namespace

from nestd.wire.library import Variant

from . import render
from .client import CHANGE_LIMIT, Client
from .screen import Screen

MANAGER_PATH = "/org/nestd1"
MANAGER = "org.nestd1.Manager"


def status(given: Namespace, client: Client, screen: Screen) -> None:
    """Print what GetStatus tells."""
    (values,) = client.call(MANAGER_PATH, MANAGER, "GetStatus", returns="a{sv}")
    if given.json:
        screen.json(values)
    else:
        screen.say(render.status(values, screen.style))


def enable(given: Namespace, client: Client, screen: Screen) -> None:
    """Turn nesting on."""
    _change("Enable", "Turning nesting on", given, client, screen)


def disable(given: Namespace, client: Client, screen: Screen) -> None:
    """Turn nesting off."""
    _change("Disable", "Turning nesting off", given, client, screen)


def _change(member: str, what: str, given: Namespace, client: Client, screen: Screen) -> None:
    options = {"scope": Variant("s", given.scope), "dry-run": Variant("b", given.dry_run)}
    with screen.progress(what) as tick:
        (result,) = client.call(
            *(MANAGER_PATH, MANAGER, member, "a{sv}", options),
            returns="a{sv}",
            limit=CHANGE_LIMIT,
            waiting=tick,
        )
    if given.json:
        screen.json(result)
    else:
        screen.say(render.change(result, given.dry_run, screen.style))
