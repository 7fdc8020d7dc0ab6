# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is answered from kept bytes is still the truth, and a crowd is served whole. Times: tests/bench."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.bench.load import crowd
from tests.support.clients import MANAGER, NAME, PATH, PROPERTIES, Client, Message
from tests.support.daemon import Daemon, by_hand
from tests.support.privatebus import PrivateBus
from tests.support.tools import Tools
from tests.support.tree import Tree

pytestmark = pytest.mark.bus

_CALLS = 6000


def _resident(pid: int) -> int:
    """Memory of a process that is its own, in kB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(map(int, re.findall(r"^Private_\w+: +(\d+) kB", text, re.MULTILINE)))


def test_the_reference_count_has_no_event_and_is_never_old(root: Client, tree: Tree) -> None:
    for users in (0, 1, 1, 7, 0, 7):
        tree.write("/sys/module/kvm_amd/refcnt", f"{users}\n")
        status = root.call("GetStatus")[0]
        assert (status["users"], status["nested"]) == (users, "on")


def test_a_change_that_is_no_property_reaches_get_status(root: Client, tree: Tree, daemon: Daemon) -> None:
    assert root.call("GetStatus")[0]["parameters"]["nested"] == "1"
    before = root.get_all()
    tree.write("/sys/module/kvm_amd/parameters/npt", "0\n")
    root.subscribe()
    daemon.uevent("add", "kvm_amd")
    root.signal("ModuleEvent")
    assert root.call("GetStatus")[0]["parameters"]["npt"] == "0"
    assert root.get_all() == before


def test_after_it_was_announced_nothing_says_otherwise(root: Client, daemon: Daemon, tools: Tools) -> None:
    root.subscribe()
    for program, action, state in (("rmmod", "remove", "unloaded"), ("modprobe", "add", "loaded")) * 3:
        root.get_all()
        root.call("GetStatus")
        by_hand(tools, program, "kvm_amd")
        daemon.uevent(action, "kvm_amd")
        root.signal("PropertiesChanged", lambda body, wanted=state: body[1].get("DriverState") == wanted)  # type: ignore[misc]
        assert root.get("DriverState") == state
        assert root.get_all()["DriverState"] == state
        assert root.call("GetStatus")[0]["driver-state"] == state


def test_a_crowd_loses_nothing(bus: PrivateBus, daemon: Daemon) -> None:
    """8 clients with 32 calls in flight each: every call is answered once, and nothing is left of it."""
    path = bus.address.removeprefix("unix:path=")
    calls = (
        Message(NAME, PATH, PROPERTIES, "GetAll", signature="s", body=[MANAGER]),
        Message(NAME, PATH, MANAGER, "GetStatus"),
    )
    for call in calls:
        crowd(path, call, clients=8, in_flight=32, total=1000)
    memory, files = _resident(daemon.pid), len(os.listdir(f"/proc/{daemon.pid}/fd"))  # noqa: PTH208
    for call in calls:
        assert len(crowd(path, call, clients=8, in_flight=32, total=_CALLS)) == _CALLS
    assert _resident(daemon.pid) < memory + 2048
    assert len(os.listdir(f"/proc/{daemon.pid}/fd")) == files  # noqa: PTH208
