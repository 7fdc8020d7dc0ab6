# SPDX-License-Identifier: LGPL-2.1-or-later
"""A lab as a value: some nodes, their addresses on one segment, and the guests that they become."""

from __future__ import annotations

import re
import time
from binascii import crc32
from collections.abc import Mapping
from enum import StrEnum
from ipaddress import IPv4Network
from typing import Any, NamedTuple

from nestd.errors import InvalidArgs
from nestd.guestmodel import Disk, GuestSpec, Network, Overlay
from nestd.guests import checks, labplaces, request
from nestd.guests.placeholders import Node, put_in, put_in_bytes

# CreateLab's own options, besides Launch's.
OPTIONS: Mapping[str, str] = {"nodes": "u", "subnet": "s"}
_NODES = 2
_MAX_NODES = 16
_SUBNET = "10.77.0.0/24"
# The number of a guest is the last byte of its MAC address.
_PREFIXES = range(24, 29)
_MAC = "52:54:00"  # QEMU's own


class Lab(NamedTuple):
    """What is remembered of a lab. `created` is in microseconds since the epoch.

    `user` is the account of the uid `owner`; `options` are Launch's, as they were given. `doing` is what is
    under way: nothing, `create`, `start` or `remove`; `begun` are the nodes that it starts. `joined` are the
    numbers of other guests on the segment.
    """

    name: str
    owner: int
    user: str
    nodes: int
    subnet: str
    created: int
    options: Mapping[str, Any]
    doing: str = ""
    begun: tuple[int, ...] = ()
    joined: Mapping[str, int] = {}

    @property
    def numbers(self) -> range:
        """The nodes' numbers."""
        return range(1, self.nodes + 1)


class LabState(StrEnum):
    """How much of a lab runs."""

    RUNNING = "running"
    PARTIAL = "partial"
    STOPPED = "stopped"


class LabNode(NamedTuple):
    """A guest of a lab. `address` has its prefix length; `guest` is the name again, empty while it is off."""

    name: str
    address: str
    mac: str
    guest: str


class LabView(NamedTuple):
    """A lab as it is now. `created` is in microseconds since the epoch; `require_nesting` as for Launch."""

    name: str
    owner: int
    state: LabState
    subnet: str
    nodes: tuple[LabNode, ...]
    created: int
    require_nesting: bool


def check(name: str, options: Mapping[str, Any]) -> tuple[int, str]:
    """The number of nodes and the subnet, from CreateLab's own options. InvalidArgs, for the name too."""
    if not re.fullmatch(labplaces.NAME_PATTERN, name):
        raise InvalidArgs(
            f"{checks.shown(name)} is no name for a lab: use at most 37 letters, digits, '-', '_' and '.', "
            "beginning with a letter or digit."
        )
    nodes, subnet = options.get("nodes", _NODES), options.get("subnet", _SUBNET)
    if not 1 <= nodes <= _MAX_NODES:
        raise InvalidArgs(f"nodes must be from 1 to {_MAX_NODES}, not {nodes}.")
    try:
        network = IPv4Network(subnet)
    except ValueError as error:
        raise InvalidArgs(f"{checks.shown(subnet)} is no subnet: write one such as {_SUBNET}.") from error
    if network.prefixlen not in _PREFIXES or "/" not in subnet:
        raise InvalidArgs(
            f"The subnet {network} must have a prefix from /{_PREFIXES[0]} to /{_PREFIXES[-1]}."
        )
    if nodes > network.num_addresses - 2:
        raise InvalidArgs(f"The subnet {network} has no addresses for {nodes} nodes.")
    return nodes, str(network)


def new(name: str, owner: int, user: str, options: Mapping[str, Any]) -> Lab:
    """A lab that is about to be created; `options` are CreateLab's without `user`. InvalidArgs."""
    nodes, subnet = check(name, options)
    launch = {key: value for key, value in options.items() if key not in OPTIONS}
    now = time.time_ns() // 1000
    lab = Lab(name, owner, user, nodes, subnet, now, launch, "create", tuple(range(1, nodes + 1)))
    # Its texts are the longest, so what is right for it is right for all; and nobody has been judged yet.
    spec(lab, lab.nodes)
    return lab


def node(lab: Lab, number: int) -> str:
    """What the guest of that number is called."""
    return f"{lab.name}-{number}"


def address(lab: Lab, number: int) -> str:
    """The guest's address with its prefix length."""
    network = IPv4Network(lab.subnet)
    return f"{network[number]}/{network.prefixlen}"


def mac(lab: Lab, number: int) -> str:
    """The guest's MAC address. Two labs may have the same: they do not see each other."""
    high, low = divmod(crc32(lab.name.encode()) & 0xFFFF, 256)
    return f"{_MAC}:{high:02x}:{low:02x}:{number:02x}"


def plug(lab: Lab, number: int) -> Network:
    """What the network card of that number is plugged into."""
    return Network("lab", (), lab.name, mac(lab, number), address(lab, number))


def spec(lab: Lab, number: int, top: str = "") -> GuestSpec:
    """The guest that a node is. `top` stands before the paths of its own disks. InvalidArgs."""
    name = node(lab, number)
    values = Node(name, number, address(lab, number).partition("/")[0], lab.name)
    options = dict(lab.options)
    if "append" in options:
        options["append"] = put_in(options["append"], values, "append")
    if "user-data" in options:
        options["user-data"] = put_in_bytes(options["user-data"], values)
    made = request.guest_spec(name, lab.user, options)
    disks: list[Disk] = []
    overlays: list[Overlay] = []
    for at, disk in enumerate(made.disks):
        if disk.readonly or disk.snapshot:
            disks.append(disk)
            continue
        path = top + labplaces.disk(lab.name, number, at)
        disks.append(Disk(path, "qcow2"))
        overlays.append(Overlay(path, disk.path, disk.format))
    return made._replace(
        disks=tuple(disks),
        overlays=tuple(overlays),
        state=labplaces.state(lab.name) if overlays else "",
        network=plug(lab, number),
    )


def number_for(lab: Lab, guest: str, running: frozenset[str]) -> int:
    """The number of a guest that joins: what it had, or the lowest that is free. InvalidArgs: none is."""
    if guest in lab.joined:
        return lab.joined[guest]
    taken = {number for name, number in lab.joined.items() if name in running}
    for number in range(lab.nodes + 1, IPv4Network(lab.subnet).num_addresses - 1):
        if number not in taken:
            return number
    raise InvalidArgs(f"The subnet {lab.subnet} of the lab {lab.name} has no address left.")


def view(lab: Lab, running: frozenset[str], *, linked: bool) -> LabView:
    """The lab while the guests `running` are in it; `linked`: its segment carries frames."""
    nodes = [_seen(lab, node(lab, number), number, running) for number in lab.numbers]
    others = [_seen(lab, name, number, running) for name, number in lab.joined.items() if name in running]
    state = LabState.PARTIAL
    if not running:
        state = LabState.STOPPED
    elif linked and all(each.guest for each in nodes):
        state = LabState.RUNNING
    needs = bool(lab.options.get("require-nesting", True))
    return LabView(lab.name, lab.owner, state, lab.subnet, (*nodes, *others), lab.created, needs)


def _seen(lab: Lab, name: str, number: int, running: frozenset[str]) -> LabNode:
    return LabNode(name, address(lab, number), mac(lab, number), name if name in running else "")
