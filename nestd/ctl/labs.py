# SPDX-License-Identifier: LGPL-2.1-or-later
"""lab create, list, show, start, stop and remove."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from nestd.wire.library import Variant

from . import labrender, launchoptions
from .client import CHANGE_LIMIT, Client
from .commands import MANAGER, MANAGER_PATH
from .guests import kebab, moment, with_owner
from .screen import Screen
from .table import visible

LAB = "org.nestd1.Lab"
_PROPERTIES = "org.freedesktop.DBus.Properties"
_OBJECTS = "org.freedesktop.DBus.ObjectManager"
_STOP_DEFAULT = 30  # seconds, as Stop has it
_NODE = ("name", "address", "mac", "guest")


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
    with screen.progress(f"Starting the lab {visible(given.name)}") as tick:
        (path,) = client.call(
            *(MANAGER_PATH, MANAGER, "CreateLab", "sa{sv}", given.name, options),
            returns="o",
            limit=CHANGE_LIMIT,
            waiting=tick,
        )
    _show(path, given, client, screen)


def list_labs(given: Namespace, client: Client, screen: Screen) -> None:
    """Print the labs, sorted by name."""
    (objects,) = client.call(MANAGER_PATH, _OBJECTS, "GetManagedObjects", returns="a{oa{sa{sv}}}")
    found = [_values(interfaces[LAB]) for interfaces in objects.values() if LAB in interfaces]
    found.sort(key=lambda values: str(values.get("name")))
    if given.json:
        screen.json(found)
    else:
        screen.say(labrender.labs([with_owner(values) for values in found], screen.style))


def show(given: Namespace, client: Client, screen: Screen) -> None:
    """Print everything about one lab."""
    _show(_find(client, given.name), given, client, screen)


def start(given: Namespace, client: Client, screen: Screen) -> None:
    """Start the nodes that do not run."""
    path = _find(client, given.name)
    with screen.progress(f"Starting the lab {visible(given.name)}") as tick:
        client.call(path, LAB, "Start", "a{sv}", {}, limit=CHANGE_LIMIT, waiting=tick)


def stop(given: Namespace, client: Client, screen: Screen) -> None:
    """Press the power buttons and wait."""
    options = {} if given.timeout is None else {"timeout": Variant("t", given.timeout)}
    limit = CHANGE_LIMIT + (_STOP_DEFAULT if given.timeout is None else given.timeout)
    path = _find(client, given.name)
    with screen.progress(f"Stopping the lab {visible(given.name)}") as tick:
        client.call(path, LAB, "Stop", "a{sv}", options, limit=limit, waiting=tick)


def remove(given: Namespace, client: Client, screen: Screen) -> None:
    """End a lab and forget it."""
    path = _find(client, given.name)
    with screen.progress(f"Removing the lab {visible(given.name)}") as tick:
        client.call(path, LAB, "Remove", limit=CHANGE_LIMIT, waiting=tick)


def _find(client: Client, name: str) -> str:
    (path,) = client.call(MANAGER_PATH, MANAGER, "GetLab", "s", name, returns="o")
    return str(path)


def _show(path: str, given: Namespace, client: Client, screen: Screen) -> None:
    (properties,) = client.call(path, _PROPERTIES, "GetAll", "s", LAB, returns="a{sv}")
    values = _values(properties)
    if given.json:
        screen.json(values)
    else:
        screen.say(labrender.lab(with_owner(values), moment(values.get("created")), screen.style))


def _values(properties: Mapping[str, Any]) -> dict[str, Any]:
    """As guests' values; each node as a dictionary, `guest` empty while it does not run."""
    values = kebab(properties)
    nodes = (dict(zip(_NODE, node, strict=True)) for node in values.get("nodes", ()))
    values["nodes"] = [{**node, "guest": node["name"] if node["guest"] != "/" else ""} for node in nodes]
    return values
