# SPDX-License-Identifier: LGPL-2.1-or-later
"""The attacks: what any user can do to a service on the system bus, one function each.

Where the bus itself ends the attacker for what he sends (both look into headers and bodies), the next
connection goes on. tests/bus/test_attacks.py has a bus that hands on anything.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pwd import getpwnam
from types import MappingProxyType

from nestd.wire import message
from nestd.wire.header import Flag
from tests.attacks import messages
from tests.attacks.ground import PROPERTIES, QUIET, Ground, crafted
from tests.bus.rawclient import BUS
from tests.support.clients import MANAGER, NAME, NOBODY, PATH

Attack = Callable[[Ground], None]

_POLKIT = "org.freedesktop.PolicyKit1"
_INTERACTIVE = Flag.ALLOW_INTERACTIVE_AUTHORIZATION
# Accounts of every Debian (base-passwd): dbus-daemon gives each user 256 connections, 2,048 in all.
_USERS = (NOBODY, 5, 8, 9)
_CONNECTIONS = 1000


def flood(ground: Ground) -> None:
    """Calls without a reply from four connections: read, refused, unknown, and those that need polkit."""
    calls = [
        message.call(9, NAME, PATH, MANAGER, "GetStatus", flags=QUIET),
        message.call(9, NAME, PATH, PROPERTIES, "GetAll", "s", [MANAGER], flags=QUIET),
        message.call(9, NAME, PATH, MANAGER, "Nothing", flags=QUIET),
        message.call(9, NAME, PATH, MANAGER, "Enable", "a{sv}", [{}], flags=QUIET),
    ]
    with ExitStack() as stack:
        clients = [stack.enter_context(ground.client()) for _ in calls]
        end = time.monotonic() + ground.seconds
        while time.monotonic() < end:
            for client, call in zip(clients, calls, strict=True):
                client.send(call * 20)


def flood_of_scans(ground: Ground) -> None:
    """ListHolders and Diagnose, which read all of /proc, without a reply."""
    members = ("ListHolders", "Diagnose")
    call = b"".join(message.call(9, NAME, PATH, MANAGER, member, flags=QUIET) for member in members)
    with ground.client() as client:
        end = time.monotonic() + ground.seconds
        while time.monotonic() < end:
            client.send(call * 20)


def scans(ground: Ground) -> None:
    """ListHolders and Diagnose with a reply, 32 under way all the time."""
    with ground.client() as client:
        for member in ("ListHolders", "Diagnose") * 16:
            client.post(NAME, PATH, MANAGER, member)
        end = time.monotonic() + ground.seconds
        while time.monotonic() < end:
            if serial := ground.note(client).header.reply_serial:
                client.post(NAME, PATH, MANAGER, "Diagnose" if serial % 2 else "ListHolders")


def descriptors(ground: Ground) -> None:
    """As many descriptors as the bus takes with every message, wanted nowhere."""
    for _ in range(3):
        with ground.client() as client:
            for _ in range(20):
                for member in ("GetStatus", "Nothing", "Enable"):
                    for flags in (Flag(0), QUIET):
                        client.post(NAME, PATH, MANAGER, member, flags=flags, fds=[0] * 16)
                ground.drain(client)
            client.send(crafted(client.serial(), "Enable", "a{sv}", b"\xff\xff\xff\x7f"), [0] * 16)


def vanishing(ground: Ground) -> None:
    """Senders that are gone while polkit, which hangs, is asked about their calls; some in mid-message."""
    with ground.client(getpwnam("polkitd").pw_uid) as polkit:
        polkit.call(BUS, "/org/freedesktop/DBus", BUS, "RequestName", "su", [_POLKIT, 4])
        for number in range(60):
            with ground.client() as client:
                for _ in range(20):
                    client.post(NAME, PATH, MANAGER, "Enable", "a{sv}", [{}], flags=_INTERACTIVE)
                client.post(NAME, PATH, MANAGER, "Launch", "sa{sv}", ["x", {}])
                client.post(NAME, PATH, MANAGER, "ListHolders")
                if number % 2:
                    client.post(NAME, PATH, MANAGER, "GetStatus")
                    client.answer(client.post(NAME, PATH, MANAGER, "GetStatus"))
                client.send(crafted(client.serial(), "GetStatus")[:50])
            ground.drain(polkit)


def thousand_connections(ground: Ground) -> None:
    """1,000 connections of four users, all there at once, each with a call under way."""
    with ExitStack() as stack:
        clients = []
        for number in range(_CONNECTIONS):
            clients.append(stack.enter_context(ground.connect(_USERS[number % len(_USERS)])))
        for client in clients:
            client.post(NAME, PATH, MANAGER, "Enable", "a{sv}", [{}])
        for client in clients:
            ground.drain(client)


def never_reads(ground: Ground) -> None:
    """Clients that ask until nothing more can be sent, and never read an answer."""
    with ExitStack() as stack:
        calls = [
            message.call(9, NAME, PATH, PROPERTIES, "GetAll", "s", [MANAGER]),
            message.call(9, NAME, PATH, "org.freedesktop.DBus.Introspectable", "Introspect"),
        ]
        clients = [stack.enter_context(ground.client()) for _ in range(8)]
        for client in clients:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.socket.settimeout(0.2)
        end = time.monotonic() + 2
        while time.monotonic() < end:
            for number, client in enumerate(clients):
                # The bus reads no more from it, or has ended it.
                with suppress(TimeoutError, ConnectionError):
                    client.send(calls[number % 2] * 50)
        time.sleep(1)


_ALL = (
    messages.unknown_header_fields,
    messages.unknown_message_types,
    messages.odd_flags,
    messages.no_interface,
    messages.signatures_64,
    messages.signatures_6000,
    messages.large_bodies,
    messages.many_small_values,
    messages.deep_nesting,
    flood,
    flood_of_scans,
    scans,
    descriptors,
    vanishing,
    thousand_connections,
    never_reads,
    messages.broken_bodies,
    messages.random_bytes,
)
ATTACKS: Mapping[str, Attack] = MappingProxyType({attack.__name__: attack for attack in _ALL})
