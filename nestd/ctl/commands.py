# SPDX-License-Identifier: LGPL-2.1-or-later
"""status, diagnose, holders, enable, disable and cancel: the commands that are about the machine."""

from __future__ import annotations

from argparse import Namespace

from nestd.wire.library import Variant

from . import render
from .client import CHANGE_LIMIT, Client
from .failures import FAILED
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


def diagnose(given: Namespace, client: Client, screen: Screen) -> int:
    """Print each check, with its remedy; 1 where one fails."""
    (rows,) = client.call(MANAGER_PATH, MANAGER, "Diagnose", returns="a(ssss)", limit=CHANGE_LIMIT)
    checks = [dict(zip(("id", "verdict", "message", "remedy"), row, strict=True)) for row in rows]
    if given.json:
        screen.json(checks)
    else:
        screen.say(render.diagnosis(checks, screen.style))
    return FAILED if any(check["verdict"] == "fail" for check in checks) else 0


def holders(given: Namespace, client: Client, screen: Screen) -> None:
    """Print who holds the driver."""
    (rows,) = client.call(MANAGER_PATH, MANAGER, "ListHolders", returns="a(usss)")
    found = [dict(zip(("pid", "command", "unit", "machine"), row, strict=True)) for row in rows]
    if given.json:
        screen.json(found)
    else:
        screen.say(render.holders(found, screen.style))


def enable(given: Namespace, client: Client, screen: Screen) -> None:
    """Turn nesting on."""
    _change("Enable", "Turning nesting on", given, client, screen)


def disable(given: Namespace, client: Client, screen: Screen) -> None:
    """Turn nesting off."""
    _change("Disable", "Turning nesting off", given, client, screen)


def cancel(_: Namespace, client: Client, screen: Screen) -> None:
    """Forget the change that waits for the driver to become idle."""
    client.call(MANAGER_PATH, MANAGER, "CancelPending", limit=CHANGE_LIMIT)
    screen.say("No change waits.\n")


def _change(member: str, what: str, given: Namespace, client: Client, screen: Screen) -> None:
    options = {"scope": Variant("s", given.scope), "dry-run": Variant("b", given.dry_run)}
    if given.when_idle:
        options["when-idle"] = Variant("b", True)
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
