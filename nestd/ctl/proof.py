# SPDX-License-Identifier: LGPL-2.1-or-later
"""verify, measure and cpu: whether nesting really works here, what it costs, and which CPU to ask for."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from nestd.wire.library import Variant

from . import proofrender
from .client import CHANGE_LIMIT, Client
from .commands import MANAGER, MANAGER_PATH
from .failures import FAILED, UNSUPPORTED
from .screen import Screen

_TIMEOUT = 120  # seconds, as Verify has it
_SPREAD = ("median", "low", "high", "rounds")
_PROBING = "Booting a guest that runs a guest of its own"


def verify(given: Namespace, client: Client, screen: Screen) -> int:
    """Print what a throw-away guest saw; 4 where its guest did not run."""
    found = _verify(given, client, screen)
    if given.json:
        screen.json(found)
    else:
        screen.say(proofrender.verified(found, screen.style))
    return 0 if found.get("works") is True else UNSUPPORTED


def measure(given: Namespace, client: Client, screen: Screen) -> int:
    """Print what an exit costs, with --levels that of a guest's guest, too.

    4 where that does not run, 1 where it ran and was not measured.
    """
    found = _asked("MeasureExit", {}, "Measuring", client, screen)
    found["exits"] = _named(found.get("exits"))
    inside: dict[str, Any] = {}
    if given.levels:
        inside = _verify(given, client, screen)
        found |= {"inside": inside, "ratios": proofrender.ratios(found["exits"], inside["exits"])}
    if given.json:
        screen.json(found)
    else:
        screen.say(proofrender.measured(found, screen.style))
    if given.levels and inside.get("works") is not True:
        return UNSUPPORTED
    return FAILED if given.levels and not found["ratios"] else 0


def cpu(given: Namespace, client: Client, screen: Screen) -> int:
    """Print a CPU for QEMU and for libvirt, and what QEMU grants of it; 4 where it cannot nest."""
    found = _asked("CheckCpu", _options(given), "Asking QEMU", client, screen)
    if given.json:
        screen.json(found)
    elif given.form:
        screen.say(proofrender.form(found, given.form))
        if doubts := proofrender.doubts(found, given.form):
            screen.complain(" ".join(doubts))
    else:
        screen.say(proofrender.cpu(found, screen.style))
    return 0 if found.get("nesting") is True else UNSUPPORTED


def _verify(given: Namespace, client: Client, screen: Screen) -> dict[str, Any]:
    options, timeout = _options(given), getattr(given, "timeout", None)
    if timeout is not None:
        options["timeout"] = Variant("u", timeout)
    found = _asked("Verify", options, _PROBING, client, screen, timeout or _TIMEOUT)
    return {**found, "exits": _named(found.get("exits"))}


def _asked(
    member: str, options: dict[str, Variant], what: str, client: Client, screen: Screen, longer: int = 0
) -> dict[str, Any]:
    """What a method gives; `longer`: seconds that it may take beyond what every call may."""
    with screen.progress(what) as tick:
        (found,) = client.call(
            *(MANAGER_PATH, MANAGER, member, "a{sv}", options),
            returns="a{sv}",
            limit=CHANGE_LIMIT + longer,
            waiting=tick,
        )
    return dict(found)


def _options(given: Namespace) -> dict[str, Variant]:
    """Only what was said, so that the defaults stay the daemon's."""
    said = (("cpu", "s", "cpu"), ("cpu-features", "as", "features"), ("user", "s", "user"))
    found = ((name, signature, getattr(given, source, None)) for name, signature, source in said)
    return {name: Variant(signature, value) for name, signature, value in found if value}


def _named(exits: Any) -> dict[str, dict[str, float]]:
    """Each spread by the names of its parts; what is no spread is left out."""
    if not isinstance(exits, dict):
        return {}
    return {
        kind: dict(zip(_SPREAD, spread, strict=True))
        for kind, spread in exits.items()
        if isinstance(spread, list) and len(spread) == len(_SPREAD)
    }
