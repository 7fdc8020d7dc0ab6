# SPDX-License-Identifier: LGPL-2.1-or-later
"""status, diagnose, holders, enable, disable, revert and cancel: the commands that are about the machine."""

from __future__ import annotations

from nestd.wire.library import Variant

from . import render
from .client import CHANGE_LIMIT, NO_LIMIT, Client
from .failures import FAILED
from .screen import Screen

TYPE_CHECKING = False  # as typing has it, which costs time to load
if TYPE_CHECKING:
    from argparse import Namespace

MANAGER_PATH = "/org/nestd1"
MANAGER = "org.nestd1.Manager"


def status(given: Namespace, client: Client, screen: Screen) -> None:
    """Print what GetStatus tells."""
    with screen.progress("Asking nestd") as tick:  # which may have to be started
        (values,) = client.call(MANAGER_PATH, MANAGER, "GetStatus", returns="a{sv}", waiting=tick)
    if given.json:
        screen.json(values)
    else:
        screen.say(render.status(values, screen.style))


def diagnose(given: Namespace, client: Client, screen: Screen) -> int:
    """Print each check, with its remedy; 1 where one fails."""
    with screen.progress("Looking at the machine") as tick:
        (rows,) = client.call(
            *(MANAGER_PATH, MANAGER, "Diagnose"), returns="a(ssss)", limit=CHANGE_LIMIT, waiting=tick
        )
    checks = [dict(zip(("id", "verdict", "message", "remedy"), row, strict=True)) for row in rows]
    if given.json:
        screen.json(checks)
    else:
        screen.say(render.diagnosis(checks, screen.style))
    return FAILED if any(check["verdict"] == "fail" for check in checks) else 0


def holders(given: Namespace, client: Client, screen: Screen) -> None:
    """Print who holds the driver."""
    with screen.progress("Looking who uses KVM") as tick:
        (rows,) = client.call(MANAGER_PATH, MANAGER, "ListHolders", returns="a(usss)", waiting=tick)
    found = [dict(zip(("pid", "command", "unit", "machine"), row, strict=True)) for row in rows]
    if given.json:
        screen.json(found)
    else:
        screen.say(render.holders(found, screen.style))


def enable(given: Namespace, client: Client, screen: Screen) -> None:
    """Turn nesting on."""
    _turn("Enable", "Turning nesting on", given, client, screen)


def disable(given: Namespace, client: Client, screen: Screen) -> None:
    """Turn nesting off."""
    _turn("Disable", "Turning nesting off", given, client, screen)


def revert(given: Namespace, client: Client, screen: Screen) -> None:
    """Take back what was set for the next boots."""
    options = {"dry-run": Variant("b", given.dry_run)}
    _change("Revert", "Taking back what was set", options, given, client, screen)


def cancel(_: Namespace, client: Client, screen: Screen) -> None:
    """Forget the change that waits for the driver to become idle."""
    client.call(MANAGER_PATH, MANAGER, "CancelPending", limit=CHANGE_LIMIT)
    screen.say("No change waits.\n")


def _turn(member: str, what: str, given: Namespace, client: Client, screen: Screen) -> None:
    options = {"scope": Variant("s", given.scope), "dry-run": Variant("b", given.dry_run)}
    for name, wanted in (("when-idle", given.when_idle), ("replace", given.replace)):
        if wanted:
            options[name] = Variant("b", True)
    if given.loader:
        options["loader"] = Variant("s", given.loader)
    _change(member, what, options, given, client, screen)


def _change(
    member: str, what: str, options: dict[str, Variant], given: Namespace, client: Client, screen: Screen
) -> None:
    from .job import JobWatch  # noqa: PLC0415 - reading does not need it

    # The password comes before the job, whose words can then be written over nothing.
    watch = JobWatch(member.lower(), "" if screen.quiet else what)
    if screen.terminal:
        client.listen(watch.hear)
    with screen.progress(watch.words) as tick:
        (result,) = client.call(
            *(MANAGER_PATH, MANAGER, member, "a{sv}", options),
            returns="a{sv}",
            limit=NO_LIMIT,
            waiting=tick,
        )
    if given.json:
        screen.json(result)
    else:
        screen.say(render.change(result, given.dry_run, screen.style))
