# SPDX-License-Identifier: LGPL-2.1-or-later
"""lab create, list, show, start, stop and remove."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from nestd.errors import Malformed
from nestd.wire.library import Variant

from . import labrender, launchoptions
from .client import CHANGE_LIMIT, Client
from .failures import CtlError
from .owned import every, find, make, moment, read, stopping, with_owner
from .screen import Screen
from .table import visible

LAB = "org.nestd1.Lab"
_SHAPE = "a lab's nodes have another shape than this nestctl knows"


def run(given: Namespace, client: Client, screen: Screen) -> None:
    """One of the commands."""
    verbs = {
        "lab create": create,
        "lab list": list_labs,
        "lab show": show,
        "lab start": start,
        "lab stop": stop,
        "lab remove": remove,
    }
    verbs[given.command](given, client, screen)


def create(given: Namespace, client: Client, screen: Screen) -> None:
    """Create a lab, and show it."""
    options = launchoptions.options(given)
    if given.nodes is not None:
        options["nodes"] = Variant("u", given.nodes)
    if given.subnet is not None:
        options["subnet"] = Variant("s", given.subnet)
    what = f"Starting the lab {visible(given.name)}"
    path = make("CreateLab", given.name, options, what, client, screen)
    _show(path, given, client, screen)


def list_labs(given: Namespace, client: Client, screen: Screen) -> None:
    """Print the labs, sorted by name."""
    found = [_known(values) for values in every(LAB, client)]
    if given.json:
        screen.json(found)
    else:
        screen.say(labrender.labs([with_owner(values, given) for values in found], screen.style))


def show(given: Namespace, client: Client, screen: Screen) -> None:
    """Print everything about one lab."""
    _show(find("GetLab", given.name, client), given, client, screen)


def start(given: Namespace, client: Client, screen: Screen) -> None:
    """Start the nodes that do not run."""
    path = find("GetLab", given.name, client)
    with screen.progress(f"Starting the lab {visible(given.name)}") as tick:
        client.call(path, LAB, "Start", "a{sv}", {}, limit=CHANGE_LIMIT, waiting=tick)


def stop(given: Namespace, client: Client, screen: Screen) -> None:
    """Press the power buttons and wait."""
    options, limit = stopping(given)
    path = find("GetLab", given.name, client)
    with screen.progress(f"Stopping the lab {visible(given.name)}") as tick:
        client.call(path, LAB, "Stop", "a{sv}", options, limit=limit, waiting=tick)


def remove(given: Namespace, client: Client, screen: Screen) -> None:
    """End a lab and forget it."""
    path = find("GetLab", given.name, client)
    with screen.progress(f"Removing the lab {visible(given.name)}") as tick:
        client.call(path, LAB, "Remove", limit=CHANGE_LIMIT, waiting=tick)


def _show(path: str, given: Namespace, client: Client, screen: Screen) -> None:
    values = _known(read(path, LAB, client))
    if given.json:
        screen.json(values)
    else:
        screen.say(labrender.lab(with_owner(values, given), moment(values.get("created")), screen.style))


def with_nodes(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, each node as a dictionary, `guest` empty while it does not run.

    Malformed: the nodes have another shape.
    """
    nodes = values.get("nodes", [])
    if not isinstance(nodes, list):
        raise Malformed(_SHAPE)
    return {**values, "nodes": [_node(node) for node in nodes]}


def _node(told: object) -> dict[str, str]:
    match told:
        case [str(name), str(address), str(mac), str(guest)]:
            return {"name": name, "address": address, "mac": mac, "guest": name if guest != "/" else ""}
    raise Malformed(_SHAPE)


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return with_nodes(values)
    except Malformed as error:
        raise CtlError(f"nestd's answer cannot be read: {error}. Is nestd of another version?") from None
