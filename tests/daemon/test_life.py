# SPDX-License-Identifier: LGPL-2.1-or-later
"""The life of the process: its name, its readiness, its end, and what the bus lets through."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support.busctl import busctl
from tests.support.clients import ALICE, DBUS, MANAGER, NAME, NOBODY, PATH, PROPERTIES, CallError, Client
from tests.support.daemon import TOP, Daemon
from tests.support.privatebus import PrivateBus
from tests.support.tools import Tools
from tests.support.tree import Tree

pytestmark = pytest.mark.bus

XML = TOP / "data/org.nestd1.xml"
INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"


@pytest.fixture
def started(bus: PrivateBus, tree: Tree, tools: Tools) -> Iterator[Daemon]:
    """A daemon that the test may end itself."""
    daemon = Daemon(bus, tree)
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_cleanly_on_a_signal(bus: PrivateBus, started: Daemon, number: signal.Signals) -> None:
    os.kill(started.pid, number)
    assert started.ended() == 0
    assert "STOPPING=1" in started.notified("STOPPING=1")
    with Client(bus.address) as client:
        assert client.owner_of(NAME) == ""
    assert "Traceback" not in started.stderr()


def test_it_finishes_a_change_before_it_ends(
    bus: PrivateBus, started: Daemon, tree: Tree, tools: Tools
) -> None:
    tools.fail("rmmod", "kvm_amd", hang=0.5)
    with Client(bus.address) as root:
        call = root.send("Disable", "a{sv}", [{}])
        while not any(one[0] == "rmmod" for one in tools.calls()):
            root.get("Nested")
        os.kill(started.pid, signal.SIGTERM)
        assert started.ended() == 0
        assert root.reply(call)[0]["nested"] == "off"
    assert tree.read("/sys/module/kvm_amd/parameters/nested") == "0\n"


def test_it_is_ready_when_it_can_be_called(started: Daemon) -> None:
    assert "READY=1" in started.notified("READY=1")


def test_it_feeds_the_watchdog(bus: PrivateBus, tree: Tree, tools: Tools) -> None:
    daemon = Daemon(bus, tree)
    try:
        daemon.start({"WATCHDOG_USEC": "400000"})
        daemon.notified("WATCHDOG=1")
        daemon.notified("WATCHDOG=1")
        assert daemon.stop() == 0
    finally:
        daemon.close()


def test_a_second_one_says_that_there_is_one(bus: PrivateBus, daemon: Daemon, tree: Tree) -> None:
    second = Daemon(bus, tree)
    try:
        second.spawn()
        assert second.ended() == 1
        assert NAME in second.stderr()
        assert "Traceback" not in second.stderr()
    finally:
        second.close()
    with Client(bus.address) as client:
        assert client.get("Nested") == "on"


def test_the_end_of_the_bus_is_its_end(bus: PrivateBus, started: Daemon) -> None:
    bus.stop()
    assert started.ended() == 1
    assert "bus" in started.stderr()
    assert "Traceback" not in started.stderr()


@pytest.mark.parametrize(
    "address", ["unix:path=/nonexistent/bus", "nonsense", "tcp:host=127.0.0.1,port=9", ""]
)
def test_a_bus_that_is_none_is_said(address: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nestd", f"--bus={address}"],
        cwd=TOP, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode in (1, 2)
    assert done.stderr and "Traceback" not in done.stderr


def test_the_command_line(tmp_path: Path) -> None:
    def nestd(*arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "nestd", *arguments]
        return subprocess.run(argv, cwd=TOP, capture_output=True, text=True, check=False, timeout=60)

    assert re.fullmatch(r"nestd \d+\.\d+\.\d+\n", nestd("--version").stdout)
    assert "--bus" in nestd("--help").stdout
    assert nestd("--frobnicate").returncode == 2


@pytest.mark.parametrize("uid", [ALICE, NOBODY])
def test_nobody_else_may_own_the_name(bus: PrivateBus, uid: int) -> None:
    with Client(bus.address, uid) as client:
        error = client.error("RequestName", "su", [NAME, 0], destination=DBUS, path="/", interface=DBUS)
        assert error.name == "org.freedesktop.DBus.Error.AccessDenied"


def test_the_name_cannot_be_taken_away(bus: PrivateBus, daemon: Daemon) -> None:
    replace = 2  # DBUS_NAME_FLAG_REPLACE_EXISTING
    with Client(bus.address) as root:
        owner = root.owner_of(NAME)
        body = [NAME, replace | 4]
        assert root.call("RequestName", "su", body, destination=DBUS, path="/", interface=DBUS) == [3]
        assert root.owner_of(NAME) == owner


def test_everybody_may_read_and_ping_and_introspect(bus: PrivateBus, daemon: Daemon) -> None:
    with Client(bus.address, NOBODY) as nobody:
        assert nobody.get("Nested") == "on"
        assert nobody.call("Ping", interface="org.freedesktop.DBus.Peer") == []
        machine_id = nobody.call("GetMachineId", interface="org.freedesktop.DBus.Peer")[0]
        assert re.fullmatch("[0-9a-f]{32}", machine_id)
        managed = nobody.call("GetManagedObjects", interface="org.freedesktop.DBus.ObjectManager")
        assert isinstance(managed[0], dict)


def test_other_interfaces_are_stopped_by_the_bus(bus: PrivateBus, daemon: Daemon) -> None:
    bus.complaints_expected = True  # it logs what it refuses
    with Client(bus.address, NOBODY) as nobody:
        error = nobody.error("Frobnicate", interface="org.example.Other")
        assert error.name == "org.freedesktop.DBus.Error.AccessDenied"


def test_the_interface_is_served_verbatim(root: Client) -> None:
    served = root.call("Introspect", interface=INTROSPECTABLE)[0]
    assert own_part(XML.read_text()) in served
    tree = ElementTree.fromstring(served)
    names = {one.get("name") for one in tree.findall("interface")}
    standard = {"Properties", "Introspectable", "Peer", "ObjectManager"}
    assert names == {MANAGER, *(f"org.freedesktop.DBus.{name}" for name in standard)}


def own_part(text: str) -> str:
    start = text.index(f'<interface name="{MANAGER}">')
    return text[start : text.index("</interface>", start) + len("</interface>")]


def test_parents_lead_to_the_object(root: Client) -> None:
    for path, child in (("/", "org"), ("/org", "nestd1")):
        served = ElementTree.fromstring(root.call("Introspect", path=path, interface=INTROSPECTABLE)[0])
        assert [one.get("name") for one in served.findall("node")] == [child]


def test_busctl_introspect_shows_all_of_it(bus: PrivateBus, daemon: Daemon) -> None:
    done = busctl(bus.address, "introspect", NAME, PATH, MANAGER, uid=ALICE)
    assert done.returncode == 0, done.stderr
    shown = {line.split()[0]: line.split()[1:4] for line in done.stdout.splitlines()[1:]}
    interface = ElementTree.parse(XML).find(f"interface[@name='{MANAGER}']")
    assert interface is not None
    expected: dict[str, list[str]] = {}
    for kind in ("method", "property", "signal"):
        for one in interface.findall(kind):
            into, out = (
                "".join(
                    arg.get("type", "") for arg in one.findall("arg") if arg.get("direction", "out") == way
                )
                for way in ("in", "out")
            )
            signature = {"method": into, "property": one.get("type", ""), "signal": out}[kind] or "-"
            expected["." + one.get("name", "")] = [kind, signature]
    assert {name: words[:2] for name, words in shown.items()} == expected
    assert shown[".GetStatus"][2] == "a{sv}"


def test_no_reply_is_sent_where_none_is_wanted(root: Client) -> None:
    quiet = root.send("GetStatus", no_reply=True)
    wrong = root.send("Frobnicate", no_reply=True)
    root.get("Nested")
    for serial in (quiet, wrong):
        with pytest.raises(TimeoutError):
            root.reply(serial, limit=0.0)


def test_calls_are_answered_in_their_turn_under_load(root: Client, bus: PrivateBus) -> None:
    serials = [root.send("GetStatus") for _ in range(100)]
    with Client(bus.address, NOBODY) as other:
        assert other.get("Nested") == "on"
    assert all(root.reply(serial)[0]["nested"] == "on" for serial in serials)


def test_it_survives_a_caller_that_vanishes(bus: PrivateBus, daemon: Daemon) -> None:
    for _ in range(50):
        with Client(bus.address, NOBODY) as client:
            client.send("GetStatus")
    with Client(bus.address) as root:
        assert root.get("Nested") == "on"


def test_getall_of_an_unknown_interface(root: Client) -> None:
    with pytest.raises(CallError) as caught:
        root.call("GetAll", "s", ["org.example.Other"], interface=PROPERTIES)
    assert caught.value.name == "org.freedesktop.DBus.Error.UnknownInterface"
