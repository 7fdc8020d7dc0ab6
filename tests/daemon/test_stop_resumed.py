# SPDX-License-Identifier: LGPL-2.1-or-later
"""A stop outlives the daemon that began it, as the bus shows it."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.daemon.village import GUEST, Village
from tests.support.clients import LIMIT, Client
from tests.support.daemon import Daemon
from tests.support.fakeqemu import Manner

pytestmark = pytest.mark.bus


def test_a_stop_is_told_once_and_the_next_daemon_shows_it_and_ends_it(place: Village) -> None:
    place.manner(Manner.IGNORES_THE_BUTTON)
    first = Daemon(place.bus, place.tree)
    try:
        first.start()
        with Client(place.bus.address) as root, Client(place.bus.address) as waiting:
            root.reply(place.launch(root, "demo"))
            root.subscribe()
            place.stop(waiting, "demo", 600)
            _, told, _ = root.signal("PropertiesChanged", lambda body: body[0] == GUEST)
            assert (told["State"], told["Stopping"]) == ("stopping", "power-button")
            shown = place.guests(root)["demo"]
            assert told.items() <= shown.items() and told["StopDeadline"] == shown["StopDeadline"]
            place.guests(root)
            assert "PropertiesChanged" not in root.signals_so_far()
        os.kill(first.pid, signal.SIGKILL)
        assert first.ended() == -signal.SIGKILL
    finally:
        first.close()
    with Daemon(place.bus, place.tree), Client(place.bus.address) as root:
        assert place.guests(root)["demo"] == shown
        root.reply(place.stop(root, "demo", 0))
        deadline = time.monotonic() + LIMIT
        while (ended := place.guests(root)["demo"])["State"] == "stopping":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert (ended["Result"], ended["Stopping"], ended["StopDeadline"]) == ("signal", "", 0)
