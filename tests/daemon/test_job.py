# SPDX-License-Identifier: LGPL-2.1-or-later
"""The job of a change: it comes with the first step, follows the steps, tells the end, and goes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from nestd.bus.jobs import READ_BACK
from tests.support.clients import NOBODY, PATH, PROPERTIES, Client, Variant, options
from tests.support.daemon import Daemon
from tests.support.privatebus import PrivateBus
from tests.support.tools import Tools
from tests.support.tree import Tree

pytestmark = pytest.mark.bus

JOB = "org.nestd1.Job"
OBJECTS = "org.freedesktop.DBus.ObjectManager"
UNKNOWN = "org.freedesktop.DBus.Error.UnknownObject"
ZZ = "/etc/modprobe.d/zz-nestd.conf"
WRITE, UNLOAD, LOAD = f"write {ZZ}: options kvm_amd nested=0", "unload kvm_amd", "load kvm_amd with nested=0"


@pytest.fixture
def listener(bus: PrivateBus, daemon: Daemon) -> Iterator[Client]:
    """Somebody without any rights who listens."""
    with Client(bus.address, NOBODY) as client:
        client.subscribe()
        client.get_all()
        yield client


def of_job(values: list[Any]) -> bool:
    return bool(values[0] == JOB)


def come(client: Client) -> tuple[str, dict[str, Any]]:
    """Wait until a job comes: its path and properties."""
    path, interfaces = client.signal("InterfacesAdded")
    assert list(interfaces) == [JOB]
    return path, interfaces[JOB]


def jobs(client: Client) -> dict[str, dict[str, Any]]:
    [objects] = client.call("GetManagedObjects", interface=OBJECTS)
    return {path: found[JOB] for path, found in objects.items() if JOB in found}


def test_a_change_has_a_job_from_its_first_step_to_its_end(
    root: Client, listener: Client, tools: Tools
) -> None:
    tools.fail("rmmod", "kvm_amd", hang=1.0)
    call = root.send("Disable", "a{sv}", [{}])
    path, first = come(listener)
    assert path == f"{PATH}/job/1"
    assert {name: first[name] for name in ("Operation", "Step", "Progress")} == {
        "Operation": "disable",
        "Step": WRITE,
        "Progress": 0.0,
    }
    assert 1_600_000_000_000_000 < first["StartTime"] < 1 << 62
    told = [listener.signal("PropertiesChanged", of_job)[1]]
    assert told == [{"Step": UNLOAD, "Progress": 0.25}]
    # The step takes its time: meanwhile everybody may look, and nobody has anything to say.
    now = {**first, **told[0]}
    how = {"path": path, "interface": PROPERTIES}
    assert listener.call("GetAll", "s", [JOB], **how) == [now]
    assert listener.call("Get", "ss", [JOB, "Step"], **how) == [UNLOAD]
    assert jobs(listener) == {path: now}
    refused = listener.error("Set", "ssv", [JOB, "Step", Variant("s", "mine")], **how)
    assert refused.name == "org.freedesktop.DBus.Error.PropertyReadOnly"
    [xml] = listener.call("Introspect", path=path, interface="org.freedesktop.DBus.Introspectable")
    assert f'<interface name="{JOB}">' in xml and "org.nestd1.Manager" not in xml
    told = [listener.signal("PropertiesChanged", of_job)[1] for _ in range(2)]
    assert told == [{"Step": LOAD, "Progress": 0.5}, {"Step": READ_BACK, "Progress": 0.75}]
    assert listener.signal("Completed") == [True, ""]
    assert listener.signal("InterfacesRemoved") == [path, [JOB]]
    assert root.reply(call)[0]["steps"] == [WRITE, UNLOAD, LOAD]
    assert jobs(listener) == {}
    assert listener.error("GetAll", "s", [JOB], **how).name == UNKNOWN


def test_each_has_a_number_of_its_own_and_says_what_it_is_about(root: Client, listener: Client) -> None:
    for number, (member, operation) in enumerate(
        [("Disable", "disable"), ("Enable", "enable"), ("Revert", "revert")], 1
    ):
        root.call(member, "a{sv}", [{}])
        path, properties = come(listener)
        assert (path, properties["Operation"]) == (f"{PATH}/job/{number}", operation)


@pytest.mark.parametrize("member", ["Disable", "Revert"])
def test_what_changes_nothing_has_no_job(root: Client, listener: Client, member: str) -> None:
    root.call("Disable", "a{sv}", [options(dry_run=True)])
    root.call("Disable", "a{sv}", [options(scope="boot")])
    root.call("Revert", "a{sv}", [options(dry_run=True)])
    if member == "Revert":
        root.call("Revert", "a{sv}", [{}])
    root.call(member, "a{sv}", [{"scope": Variant("s", "boot")} if member == "Disable" else {}])
    listener.get_all()
    assert listener.signals_so_far().count("InterfacesAdded") == (2 if member == "Revert" else 1)


def test_one_that_fails_says_what_its_caller_is_told(
    root: Client, listener: Client, tools: Tools, tree: Tree
) -> None:
    tools.fail("modprobe", "kvm_amd", code=1, words="no such luck")
    failure = root.error("Disable", "a{sv}", [{}])
    assert failure.name == "org.nestd1.Error.ReloadFailed"
    path, _ = come(listener)
    assert listener.signal("Completed") == [False, failure.text]
    assert listener.signal("InterfacesRemoved") == [path, [JOB]]
    assert "no such luck" in failure.text and not tree.root.exists(ZZ)
    root.call("Disable", "a{sv}", [{}])
    assert listener.signal("Completed") == [True, ""]


def test_it_goes_on_when_its_caller_leaves(bus: PrivateBus, listener: Client, tools: Tools) -> None:
    tools.fail("rmmod", "kvm_amd", hang=0.5)
    with Client(bus.address) as leaver:
        leaver.send("Disable", "a{sv}", [{}])
        come(listener)
    assert listener.signal("Completed") == [True, ""]
    assert listener.get("Nested") == "off"


def test_what_has_waited_has_one_too(root: Client, listener: Client, tree: Tree, daemon: Daemon) -> None:
    tree.replace("/sys/module/kvm_amd/refcnt", "1\n")
    assert root.call("Disable", "a{sv}", [options(when_idle=True)])[0]["pending"] is True
    assert jobs(listener) == {}
    tree.replace("/sys/module/kvm_amd/refcnt", "0\n")
    daemon.machine_event()
    assert come(listener)[1]["Operation"] == "disable"
    assert listener.signal("Completed") == [True, ""]
