# SPDX-License-Identifier: LGPL-2.1-or-later
"""The options of Launch that are dictionaries themselves: to disks and to a network, or InvalidArgs."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from nestd.errors import InvalidArgs
from nestd.guestmodel import Disk, Forward, Network
from nestd.guests import checks, labplaces

# With their D-Bus signatures.
DISK_OPTIONS: Mapping[str, str] = {"path": "s", "format": "s", "readonly": "b", "snapshot": "b"}
NETWORK_OPTIONS: Mapping[str, str] = {"kind": "s", "forwards": "as", "lab": "s"}

_FORMATS = ("raw", "qcow2")
_KINDS = ("none", "user", "lab")
# One virtio-blk-pci each on the q35's root bus, which has 32 slots and some in use.
_MAX_DISKS = 24
_MAX_FORWARDS = 64
# Below it only root listens (ip(7), ip_unprivileged_port_start), and QEMU never is.
_LEAST_PORT = 1024
_FORWARD = re.compile(r"(?:(tcp|udp):)?(?:([0-9.]{7,15}):)?([0-9]{1,5})-([0-9]{1,5})", re.ASCII)


def disks(disks: Sequence[Mapping[str, Any]]) -> tuple[Disk, ...]:
    """The disks of a guest."""
    if len(disks) > _MAX_DISKS:
        raise InvalidArgs(f"A guest takes at most {_MAX_DISKS} disks.")
    return tuple(_disk(disk) for disk in disks)


def network(options: Mapping[str, Any]) -> Network:
    """The network of a guest; of a lab's, who it is there comes from the lab."""
    checks.known(options, NETWORK_OPTIONS, "network")
    kind = checks.one_of(options.get("kind", "none"), "The kind of network", _KINDS)
    forwards, lab = options.get("forwards", ()), options.get("lab", "")
    if forwards and kind != "user":
        raise InvalidArgs(
            "Ports are forwarded to a guest whose network is of the kind user, and to no other."
        )
    if kind == "lab" and not re.fullmatch(labplaces.NAME_PATTERN, lab):
        raise InvalidArgs(f"A network of the kind lab needs the lab's name, not {checks.shown(lab)}.")
    if lab and kind != "lab":
        raise InvalidArgs("The option lab goes with a network of the kind lab, and with no other.")
    return Network(kind, _forwards(forwards), lab)


def _disk(options: Mapping[str, Any]) -> Disk:
    checks.known(options, DISK_OPTIONS, "a disk")
    path = checks.path(options.get("path", ""), "a disk's path")
    kind = options.get("format", "")
    if kind not in _FORMATS:
        raise InvalidArgs(
            f"The disk {path} needs its format, raw or qcow2, not {checks.shown(kind)}: a format is never "
            "guessed, as a raw disk can pretend to be another."
        )
    return Disk(path, kind, options.get("readonly", False), options.get("snapshot", False))


def _forwards(words: Sequence[str]) -> tuple[Forward, ...]:
    if len(words) > _MAX_FORWARDS:
        raise InvalidArgs(f"At most {_MAX_FORWARDS} ports are forwarded to a guest.")
    made = tuple(_forward(word) for word in words)
    taken = [(each.protocol, each.host_address, each.host_port) for each in made]
    for protocol, address, port in taken:
        if taken.count((protocol, address, port)) > 1:
            raise InvalidArgs(f"The port {protocol}:{address}:{port} is forwarded twice: choose another one.")
    return made


def _forward(word: str) -> Forward:
    found = _FORWARD.fullmatch(word)
    if found is None or not _is_address(found[2] or "127.0.0.1"):
        raise InvalidArgs(
            f"{checks.shown(word)} in forwards is no forwarded port: write tcp:127.0.0.1:2222-22, which is "
            "the protocol (tcp or udp), an IPv4 address of this machine, its port, and the guest's port."
        )
    host, guest = int(found[3]), int(found[4])
    if host < _LEAST_PORT:
        raise InvalidArgs(
            f"Ports below {_LEAST_PORT} are root's, and QEMU never is: forward another than {host}."
        )
    checks.within(host, "A forwarded port", _LEAST_PORT, 65535)
    checks.within(guest, "A guest's port", 1, 65535)
    return Forward(found[1] or "tcp", found[2] or "127.0.0.1", host, guest)


def _is_address(text: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET, text)
    except OSError:
        return False
    return True
