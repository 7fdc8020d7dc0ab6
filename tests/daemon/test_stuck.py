# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest that is stuck in everything: neither the others nor the bus notice, nor does the next daemon."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.daemon.village import GUEST, Village
from tests.support.clients import LIMIT, NOBODY, PATH, Client
from tests.support.daemon import Daemon

pytestmark = pytest.mark.bus

STUCK = f"{PATH}/guest/stuck"
PROPERTIES = "org.freedesktop.DBus.Properties"


def _property(client: Client, name: str) -> object:
    return client.call("Get", "ss", [GUEST, name], path=STUCK, interface=PROPERTIES)[0]


def _await(client: Client, name: str, value: str) -> None:
    """Wait until a property of the stuck guest has a value."""
    deadline = time.monotonic() + LIMIT
    while _property(client, name) != value:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _the_others_live(place: Village, client: Client) -> None:
    """Everything that can be done, with another guest."""
    assert client.call("GetStatus")[0]["nested"] == "on"
    client.reply(place.launch(client, "other"))
    assert place.guests(client)["other"]["State"] == "running"
    assert client.call("GetGuest", "s", ["other"]) == [f"{PATH}/guest/other"]
    client.call("OpenConsole", path=f"{PATH}/guest/other", interface=GUEST)
    client.reply(place.stop(client, "other"))
    assert place.guests(client)["other"]["Result"] == "success"


def test_a_stuck_guest_delays_neither_another_nor_the_bus(place: Village) -> None:
    with Daemon(place.bus, place.tree), Client(place.bus.address) as root:
        root.reply(place.launch(root, "stuck"))
        # It answers nobody, takes no SIGTERM, and nobody reads its console.
        os.kill(int(str(_property(root, "Pid"))), signal.SIGSTOP)
        with Client(place.bus.address) as waiting:
            consoles = 0
            while waiting.reply_name(waiting.send("OpenConsole", path=STUCK, interface=GUEST)) == "":
                consoles += 1
            assert consoles >= 1
            stops = [place.stop(waiting, "stuck", seconds) for seconds in (0, 5, 86_400)]
            _await(root, "Stopping", "power-button")
            _the_others_live(place, root)
            _await(root, "Stopping", "unit")
            _the_others_live(place, root)
            assert waiting.replies_so_far() == [], "the stops wait for their guest, and for it alone"
            with Client(place.bus.address, NOBODY) as nobody:
                assert place.running(nobody) == set() and place.guests(nobody)["stuck"]["State"] == "stopping"
            root.reply(place.kill(root, "stuck"))
            for stop in stops:
                waiting.reply(stop)
        assert place.guests(root)["stuck"]["ExitStatus"] == signal.SIGKILL


def test_the_next_daemon_serves_while_a_guest_is_stuck(place: Village) -> None:
    """Nothing is known of it, so its QEMU is asked: when it has not answered, it is there all the same."""
    with Daemon(place.bus, place.tree), Client(place.bus.address) as root:
        root.reply(place.launch(root, "stuck"))
        root.reply(place.launch(root, "demo"))
        pid = int(str(_property(root, "Pid")))
    os.kill(pid, signal.SIGSTOP)
    place.tree.path("/run/nestd/registry/stuck.json").unlink()
    with Daemon(place.bus, place.tree), Client(place.bus.address) as root:
        _the_others_live(place, root)
        assert place.guests(root)["demo"]["State"] == "running"
        deadline = time.monotonic() + LIMIT
        while "stuck" not in place.guests(root):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert (_property(root, "Pid"), _property(root, "State")) == (pid, "running")
        for name in ("stuck", "demo"):
            root.reply(place.kill(root, name))
