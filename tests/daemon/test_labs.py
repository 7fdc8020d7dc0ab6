# SPDX-License-Identifier: LGPL-2.1-or-later
"""Labs on the bus: the real daemon with the fake systemd and the fake QEMU, killed and started again."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.daemon.village import land
from tests.support import fakeqemu
from tests.support.clients import ALICE, LIMIT, NOBODY, PATH, Client, Variant, options
from tests.support.daemon import POLICY, Daemon
from tests.support.fakesystemd import FakeSystemd
from tests.support.polkitd import Polkitd, allow
from tests.support.privatebus import PrivateBus
from tests.support.tools import Tools
from tests.support.tree import Tree

pytestmark = pytest.mark.bus

OWN = "org.nestd1.Error."
INVALID = "org.freedesktop.DBus.Error.InvalidArgs"
LAB = "org.nestd1.Lab"
TOWN = {"path": f"{PATH}/lab/town", "interface": LAB}
OBJECTS = "org.freedesktop.DBus.ObjectManager"
STORE = "/var/lib/nestd/labs/town.json"
# An account of every Debian, with few rights.
AS = {**options(user="games"), "nodes": Variant("u", 2)}


@pytest.fixture
def tree() -> Iterator[Tree]:
    with land() as tree:
        fakeqemu.install(tree.path("/usr/bin"), fakeqemu.Manner.GOOD)
        yield tree


@pytest.fixture
def bus(tree: Tree) -> Iterator[PrivateBus]:
    """With systemd on it."""
    with PrivateBus(policies=[POLICY]) as bus:
        with FakeSystemd(bus.address, tree.top, Tools(tree).folder):
            yield bus


def shown(client: Client) -> dict[str, Any]:
    """The labs that ObjectManager tells of, by their paths."""
    [objects] = client.call("GetManagedObjects", interface=OBJECTS)
    return {path: found[LAB] for path, found in objects.items() if LAB in found}


def until_gone(client: Client) -> None:
    """Wait until there is no lab."""
    deadline = time.monotonic() + LIMIT
    while shown(client):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_lab_comes_changes_and_goes(bus: PrivateBus, tree: Tree) -> None:
    with Daemon(bus, tree), Client(bus.address) as root, Client(bus.address, NOBODY) as nobody:
        assert root.call("CreateLab", "sa{sv}", ["town", AS]) == [TOWN["path"]]
        assert nobody.call("GetLab", "s", ["town"]) == [TOWN["path"]]
        [(path, lab)] = shown(nobody).items()
        assert (path, lab["Name"], lab["State"], lab["Subnet"]) == (
            TOWN["path"],
            "town",
            "running",
            "10.77.0.0/24",
        )
        guests = [f"{PATH}/guest/town_2d{number}" for number in (1, 2)]
        assert [node[0] for node in lab["Nodes"]] == ["town-1", "town-2"]
        assert [node[3] for node in lab["Nodes"]] == guests
        for guest in guests:
            assert root.call("Kill", path=guest, interface="org.nestd1.Guest") == []
        root.call("Stop", "a{sv}", [{}], **TOWN)
        lab = shown(nobody)[TOWN["path"]]
        assert (lab["State"], [node[3] for node in lab["Nodes"]]) == ("stopped", ["/", "/"])
        root.call("Start", "a{sv}", [{}], **TOWN)
        assert shown(nobody)[TOWN["path"]]["State"] == "running"
        assert root.error("CreateLab", "sa{sv}", ["town", AS]).name == OWN + "LabExists"
        root.call("Remove", **TOWN)
        assert shown(nobody) == {}
        assert root.error("GetLab", "s", ["town"]).name == OWN + "LabNotFound"
        assert not tree.root.exists(STORE)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("", {}),
        ("x" * 38, {}),
        ("town", {"nodes": Variant("u", 0)}),
        ("town", {"nodes": Variant("i", 2)}),
        ("town", {"subnet": Variant("s", "everywhere")}),
        ("town", {"network": Variant("a{sv}", {"kind": Variant("s", "user")})}),
        ("town", {"kernel": Variant("s", "/k"), "append": Variant("s", "%d")}),
        ("town", {"memory": Variant("t", 1)}),
        ("town", {"disks": Variant("aa{sv}", [{"path": Variant("s", "/x")}])}),
        ("town", {"user-data": Variant("ay", b"50%")}),
        ("town", {"user": Variant("s", "root")}),
    ],
)
def test_what_it_cannot_be(bus: PrivateBus, tree: Tree, name: str, given: dict[str, Any]) -> None:
    with Daemon(bus, tree), Client(bus.address) as root:
        error = root.error("CreateLab", "sa{sv}", [name, {**options(user="games"), **given}])
        assert error.name == INVALID and error.text.isprintable()
        assert shown(root) == {}
        assert not tree.root.exists(STORE)


def test_it_outlives_the_daemon(bus: PrivateBus, tree: Tree) -> None:
    with Client(bus.address) as root:
        with Daemon(bus, tree):
            root.call("CreateLab", "sa{sv}", ["town", AS])
            before = shown(root)
        with Daemon(bus, tree) as daemon:
            assert shown(root) == before
            assert daemon.notified("READY=1")
            assert shown(root) == before
            visitor = {
                "network": Variant("a{sv}", {"kind": Variant("s", "lab"), "lab": Variant("s", "town")})
            }
            root.call("Launch", "sa{sv}", ["visitor", {**options(user="games"), **visitor}])
            nodes = shown(root)[TOWN["path"]]["Nodes"]
            assert nodes[2][:2] == ("visitor", "10.77.0.3/24") or nodes[2][:2] == ["visitor", "10.77.0.3/24"]
            root.call("Remove", **TOWN)


def test_what_was_cut_short_is_settled(bus: PrivateBus, tree: Tree) -> None:
    with Client(bus.address) as root:
        with Daemon(bus, tree):
            root.call("CreateLab", "sa{sv}", ["town", AS])
        record = json.loads(tree.read(STORE))
        assert record["doing"] == ""
        tree.path(STORE).write_text(json.dumps(record | {"doing": "create", "begun": [1, 2]}))
        with Daemon(bus, tree):
            until_gone(root)
            [objects] = root.call("GetManagedObjects", interface=OBJECTS)
            assert not [found for found in objects.values() if "org.nestd1.Guest" in found
                        and not found["org.nestd1.Guest"]["Ended"]]  # fmt: skip
            assert not tree.root.exists(STORE)


def test_a_creation_in_which_the_daemon_is_killed(bus: PrivateBus, tree: Tree) -> None:
    fakeqemu.install(tree.path("/usr/bin"), fakeqemu.Manner.SAYS_NOTHING)
    with Client(bus.address) as root:
        daemon = Daemon(bus, tree)
        try:
            daemon.start()
            root.send("CreateLab", "sa{sv}", ["town", AS])
            deadline = time.monotonic() + LIMIT
            while not tree.root.exists("/run/nestd/guests/town-1/qmp"):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            os.kill(daemon.pid, signal.SIGKILL)
            daemon.ended()
        finally:
            daemon.close()
        assert json.loads(tree.read(STORE))["doing"] == "create"
        fakeqemu.install(tree.path("/usr/bin"), fakeqemu.Manner.GOOD)
        with Daemon(bus, tree):
            until_gone(root)
            assert not tree.root.exists(STORE)
            root.call("CreateLab", "sa{sv}", ["town", AS])
            root.call("Remove", **TOWN)


def test_a_record_that_is_none_is_left_alone(bus: PrivateBus, tree: Tree) -> None:
    tree.write(STORE, '{"name": "town"')
    tree.path("/var/lib/nestd/labs").chmod(0o700)
    tree.path(STORE).chmod(0o600)
    with Daemon(bus, tree) as daemon, Client(bus.address) as root:
        assert shown(root) == {}
        assert "left out" in daemon.stderr()
        assert tree.read(STORE) == '{"name": "town"'


def test_labs_are_there_where_guests_cannot_be_found(bus: PrivateBus, tree: Tree) -> None:
    with Client(bus.address) as root:
        with Daemon(bus, tree):
            root.call("CreateLab", "sa{sv}", ["town", AS])
        refuse = tree.path("/refuse-ListUnitsByPatterns")
        refuse.touch()
        with Daemon(bus, tree) as daemon:
            assert root.call("GetLab", "s", ["town"]) == [TOWN["path"]]
            assert "No guests can be found or started" in daemon.stderr()
            # It does not take nodes that run for such that do not.
            error = root.error("Start", "a{sv}", [{}], **TOWN)
            assert (error.name, "systemd does not tell which" in error.text) == (
                "org.freedesktop.DBus.Error.Failed",
                True,
            )
            refuse.unlink()
            root.call("Remove", **TOWN)
            assert shown(root) == {}


def test_the_owner_needs_nobody(bus: PrivateBus, tree: Tree) -> None:
    with (
        Daemon(bus, tree),
        Polkitd(bus, allow("org.nestd1.launch", uid=ALICE)),
        Client(bus.address, ALICE) as alice,
    ):
        alice.call("CreateLab", "sa{sv}", ["town", {"nodes": Variant("u", 1)}])
        assert shown(alice)[TOWN["path"]]["Owner"] == ALICE
        alice.call("Stop", "a{sv}", [{"timeout": Variant("t", 5)}], **TOWN)
        alice.call("Start", "a{sv}", [{}], **TOWN)
        alice.call("Remove", **TOWN)


def test_nobody_takes_the_name_of_a_node_that_is_off(bus: PrivateBus, tree: Tree) -> None:
    with (
        Daemon(bus, tree),
        Polkitd(bus, allow("org.nestd1.launch", uid=ALICE) + allow("org.nestd1.launch", uid=NOBODY)),
        Client(bus.address, ALICE) as alice,
        Client(bus.address, NOBODY) as nobody,
    ):
        alice.call("CreateLab", "sa{sv}", ["town", {"nodes": Variant("u", 2)}])
        alice.call("Stop", "a{sv}", [{"timeout": Variant("t", 5)}], **TOWN)
        for client in (nobody, alice):
            error = client.error("Launch", "sa{sv}", ["town-2", {}])
            assert error.name == OWN + "GuestExists" and "town-2 is a node of the lab town" in error.text
        nobody.call("Launch", "sa{sv}", ["town-3", {}])
        alice.call("Start", "a{sv}", [{}], **TOWN)
        alice.call("Remove", **TOWN)
