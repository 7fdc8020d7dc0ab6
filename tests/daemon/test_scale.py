# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fifty guests at once, and two hundred one after the other: nothing is left, and nothing gets longer."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.daemon.village import OBJECTS, Census, Village
from tests.support.clients import LIMIT, NOBODY, Client
from tests.support.daemon import Daemon

pytestmark = pytest.mark.bus

MANY = 50


def _settled(place: Village, client: Client, daemon: Daemon) -> Census:
    """A census when nothing is under way any more: the journal is asked for one guest after the other."""
    deadline = time.monotonic() + LIMIT
    seen: list[Census] = []
    while time.monotonic() < deadline:
        time.sleep(0.1)
        seen = [] if _has_children(daemon.pid) else [*seen, place.census(client, daemon)]
        if len(seen) >= 5 and len(set(seen[-5:])) == 1:
            return seen[-1]
    raise TimeoutError(seen)


def _has_children(pid: int) -> bool:
    for each in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):  # one that has just ended
            if each.read_text(errors="replace").rpartition(")")[2].split()[1] == str(pid):
                return True
    return False


def _messages(client: Client, member: str, interface: str) -> int:
    """How many messages nestd sends for one such call: its reply's serial, less that of the one before."""
    client.call("Ping", interface="org.freedesktop.DBus.Peer")
    before = client.sent_there
    client.call(member, interface=interface)
    return client.sent_there - before


def _costs(place: Village) -> dict[str, int]:
    """What the questions cost that everybody asks; a client that nestd has not seen, so nothing is kept."""
    asked = {"GetStatus": "org.nestd1.Manager", "GetManagedObjects": OBJECTS}
    with Client(place.bus.address, NOBODY) as stranger:
        return {member: _messages(stranger, member, interface) for member, interface in asked.items()}


@pytest.mark.parametrize("rounds", [40, pytest.param(200, marks=pytest.mark.nightly)])
def test_many_at_once_and_many_in_a_row(place: Village, rounds: int) -> None:
    names = [f"g{number}" for number in range(MANY)]
    with Daemon(place.bus, place.tree) as daemon, Client(place.bus.address) as root:
        at_first = _costs(place)
        place.all_of(root, place.launch, names)
        assert place.running(root) == set(names)
        assert _costs(place) == at_first == {"GetStatus": 1, "GetManagedObjects": 1}
        crowded = _settled(place, root, daemon)

        place.all_of(root, place.stop, names)
        assert place.running(root) == set()
        ended = _settled(place, root, daemon)
        assert ended.units == () and ended.match_rules < crowded.match_rules
        assert ended.descriptors <= crowded.descriptors

        for number in range(rounds):
            name = names[number % MANY]
            root.reply(place.launch(root, name))
            root.reply((place.stop if number % 2 else place.kill)(root, name))
        assert _settled(place, root, daemon) == ended
        assert _costs(place) == at_first

        place.all_of(root, place.launch, names)
        assert _settled(place, root, daemon) == crowded
        place.all_of(root, place.kill, names)


def test_the_next_daemon_has_no_more_than_the_first(place: Village) -> None:
    """Killed while half of them run, it finds those again, and knows of the others."""
    names = [f"g{number}" for number in range(20)]
    with Daemon(place.bus, place.tree) as daemon, Client(place.bus.address) as root:
        place.all_of(root, place.launch, names)
        place.all_of(root, place.kill, names[::2])
        before = _settled(place, root, daemon)
        known = place.guests(root)
        assert place.running(root) == set(names[1::2])
    killed = Daemon(place.bus, place.tree)
    try:
        killed.start()
        with Client(place.bus.address) as root:
            assert place.guests(root) == known
            found = _settled(place, root, killed)
            assert found[1:] == before[1:] and found.descriptors <= before.descriptors
        os.kill(killed.pid, signal.SIGKILL)
        killed.ended()
    finally:
        killed.close()
    with Daemon(place.bus, place.tree), Client(place.bus.address) as root:
        assert place.guests(root) == known
        place.all_of(root, place.kill, names[1::2])
        assert place.running(root) == set()
