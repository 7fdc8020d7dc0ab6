# SPDX-License-Identifier: LGPL-2.1-or-later
"""What others do to the machine is heard: modules, configuration files. And what is announced is true."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.clients import MANAGER, NOBODY, Client, options
from tests.support.daemon import Daemon, by_hand
from tests.support.privatebus import PrivateBus
from tests.support.tools import Tools
from tests.support.tree import Tree

pytestmark = pytest.mark.bus


@pytest.fixture
def listener(bus: PrivateBus, daemon: Daemon) -> Iterator[Client]:
    """Somebody without any rights who listens."""
    with Client(bus.address, NOBODY) as client:
        client.subscribe()
        client.get_all()
        yield client


def changed(client: Client, name: str, value: object) -> dict[str, Any]:
    """Wait for PropertiesChanged with that; what else it says."""
    values = client.signal("PropertiesChanged", lambda body: body[1].get(name) == value)
    assert values[0] == MANAGER
    assert values[2] == [], "values are sent, not invalidated"
    return dict(values[1])


def test_a_module_that_goes_by_hand(listener: Client, daemon: Daemon, tools: Tools) -> None:
    by_hand(tools, "rmmod", "kvm_amd")
    daemon.uevent("remove", "kvm_amd")
    assert listener.signal("ModuleEvent") == ["remove", "kvm_amd"]
    assert listener.get("DriverState") == "unloaded"


def test_properties_follow_the_module(listener: Client, daemon: Daemon, tools: Tools) -> None:
    by_hand(tools, "rmmod", "kvm_amd")
    daemon.uevent("remove", "kvm_amd")
    told = changed(listener, "DriverState", "unloaded")
    assert told["Nested"] == "off"
    assert "Extension" not in told, "only what has changed is announced"
    by_hand(tools, "modprobe", "kvm_amd")
    daemon.uevent("add", "kvm_amd")
    assert changed(listener, "DriverState", "loaded")["Nested"] == "on"


@pytest.mark.parametrize("module", ["snd", "xkvm", "zfs"])
def test_other_modules_are_nobodys_business(listener: Client, daemon: Daemon, module: str) -> None:
    daemon.uevent("add", module)
    daemon.uevent("add", "kvm")
    assert listener.signal("ModuleEvent") == ["add", "kvm"]


def test_a_configuration_file_by_hand(listener: Client, tree: Tree) -> None:
    tree.dropin("mine.conf", "options kvm_amd nested=0\n")
    assert changed(listener, "NestedAtBoot", "off") == {"NestedAtBoot": "off"}
    tree.gone("/etc/modprobe.d/mine.conf")
    changed(listener, "NestedAtBoot", "on")


def test_our_own_change_is_announced_once_and_whole(bus: PrivateBus, listener: Client) -> None:
    with Client(bus.address) as root:
        root.call("Disable", "a{sv}", [{}])
    told = changed(listener, "Nested", "off")
    assert told == {"Nested": "off", "NestedAtBoot": "off", "Policy": "off"}


def test_a_failed_change_announces_nothing_in_the_end(
    bus: PrivateBus, listener: Client, tools: Tools
) -> None:
    before = listener.get_all()
    tools.fail("modprobe", "kvm_amd", code=1)
    with Client(bus.address) as root:
        root.error("Disable", "a{sv}", [options()])
    assert listener.get_all() == before


def test_nothing_is_announced_when_nothing_changes(listener: Client, daemon: Daemon) -> None:
    daemon.uevent("add", "kvm")
    listener.signal("ModuleEvent")
    listener.get_all()
    assert "PropertiesChanged" not in listener.signals_so_far()
