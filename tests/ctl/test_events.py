# SPDX-License-Identifier: LGPL-2.1-or-later
"""Signals as events, and events in words: what is told, and what is passed over."""

from __future__ import annotations

from typing import Any

import pytest

from nestd.ctl.eventrender import line
from nestd.ctl.events import Event, World
from nestd.ctl.style import Style

GUEST, LAB, JOB = ("org.nestd1.Guest", "org.nestd1.Lab", "org.nestd1.Job")
DEMO, TOWN, TURN = "/org/nestd1/guest/demo", "/org/nestd1/lab/town", "/org/nestd1/job/7"
NODES = [["town-1", "10.77.0.1/24", "52:54:00:ab:cd:01", "/"]]


STATUS = {
    "version": "1",
    "extension": "svm",
    "driver": "kvm_amd",
    "driver-state": "loaded",
    "virtualization": "kvm",
    "nested": "on",
    "nested-at-boot": "on",
    "policy": "on",
    "pending-change": "",
    "obstacle": "",
    "reboot-required": False,
    "users": 2,
    "drift": "",
}
A_GUEST = {
    "Name": "demo",
    "State": "running",
    "Pid": 4711,
    "Nesting": True,
    "Vcpus": 2,
    "Started": 1,
    "ExitStatus": 0,
    "Stopping": "",
    "Ended": 0,
    "Result": "",
    "LastWords": [],
}
GONE = A_GUEST | {"Name": "gone", "State": "failed"}
A_LAB = {
    "Name": "town",
    "State": "partial",
    "Subnet": "10.77.0.0/24",
    "Created": 1,
    "Nodes": [["town-1", "10.77.0.1/24", "52:54:00:ab:cd:01", DEMO], *NODES],
}


@pytest.fixture
def world() -> World:
    """A guest, a lab and no job."""
    objects = {DEMO: {GUEST: A_GUEST}, TOWN: {LAB: A_LAB}}
    return World(STATUS, objects)


def said(events: list[Event]) -> list[str]:
    return [line(event) for event in events]


def test_at_first(world: World) -> None:
    start = world.start()
    assert set(start.values) == {"status", "guests", "labs", "jobs"}
    assert start.values["labs"][0]["nodes"][1]["guest"] == ""
    assert said([start]) == [
        "nesting is on; at the next boot on; kvm_amd loaded; guests: demo (running); labs: town (partial)"
    ]


def test_a_guest_from_its_coming_to_its_end(world: World) -> None:
    path = "/org/nestd1/guest/x"
    known = A_GUEST | {"Name": "x\x1b[2J", "Nesting": False}
    [added] = world.hear("/org/nestd1", "InterfacesAdded", [path, {GUEST: known, "org.nestd1.Other": {}}])
    assert (added.name, added.values["guest"]["vcpus"]) == ("guest-added", 2)
    assert said([added]) == ["guest x\\x1b[2J is there: running, without nesting"]
    for changed, words in (
        ({"Pid": 7}, ""),
        ({"State": "stopping", "Stopping": "power-button"}, "is stopping: its power button was pressed"),
        ({"Stopping": "unit"}, "is stopping: systemd stops its unit"),
        (
            {"State": "failed", "Stopping": "", "ExitStatus": 9, "Result": "signal"},
            "is failed: QEMU was ended by signal 9",
        ),
    ):
        [event] = world.hear(path, "PropertiesChanged", [GUEST, changed, []])
        assert (event.name, len(event.values["changed"])) == ("guest-changed", len(changed))
        assert line(event) == (f"guest x\\x1b[2J {words}" if words else "")
    [last] = world.hear(path, "PropertiesChanged", [GUEST, {"LastWords": ["a", "b\x07"]}, []])
    assert line(last) == "QEMU's last words on x\\x1b[2J: b\\x07"
    [gone] = world.hear("/org/nestd1", "GuestExited", [path, "x\x1b[2J", "signal"])
    assert gone == Event("guest-exited", {"name": "x\x1b[2J", "result": "signal"}) and not line(gone)
    assert said(world.hear("/org/nestd1", "InterfacesRemoved", [path, [GUEST]])) == [
        "guest x\\x1b[2J is forgotten"
    ]
    assert world.hear(path, "PropertiesChanged", [GUEST, {"State": "running"}, []]) == []


def test_a_lab(world: World) -> None:
    [event] = world.hear(TOWN, "PropertiesChanged", [LAB, {"State": "stopped", "Nodes": NODES}, []])
    assert event.values["changed"]["nodes"][0]["guest"] == ""
    assert line(event) == "lab town: stopped, 0 of 1 run"
    [again] = world.hear(TOWN, "PropertiesChanged", [LAB, {"State": "running"}, []])
    assert again.values == {"name": "town", "changed": {"state": "running"}}
    assert said(world.hear("/org/nestd1", "InterfacesRemoved", [TOWN, [LAB]])) == ["lab town is removed"]
    added = world.hear("/org/nestd1", "InterfacesAdded", [TOWN, {LAB: A_LAB}])
    assert said(added) == ["lab town is there: partial, 10.77.0.0/24"]


def test_a_job(world: World) -> None:
    first = {"Operation": "enable", "Step": "write", "Progress": 0.0, "StartTime": 1}
    [begun] = world.hear("/org/nestd1", "InterfacesAdded", [TURN, {JOB: first}])
    assert begun.values == {"job": 7, "operation": "enable", "step": "write", "progress": 0.0}
    moved = world.hear(TURN, "PropertiesChanged", [JOB, {"Step": "x\x1b", "Progress": 0.5}, []])
    assert said([begun, *moved]) == ["enable 0%: write", "enable 50%: x\\x1b"]
    ended = world.hear(TURN, "Completed", [False, "no\x1b"])
    assert ended == [
        Event("job-ended", {"job": 7, "operation": "enable", "success": False, "message": "no\x1b"})
    ]
    assert said(ended) == ["enable: failed: no\\x1b"]
    assert world.hear("/org/nestd1", "InterfacesRemoved", [TURN, [JOB]]) == []


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("Nested", "off", "nesting: on → off"),
        ("NestedAtBoot", "unsupported", "nesting at the next boot: on → unsupported"),
        ("Policy", "unmanaged", "policy: on → unmanaged"),
        ("DriverState", "", "driver state: loaded → nothing"),
        ("RebootRequired", True, "a reboot is required"),
        ("PendingChange", "off", "turning nesting off waits until nobody uses KVM"),
        ("Obstacle", "no-extension\x1b", "in the way: no-extension\\x1b"),
    ],
)
def test_properties(world: World, name: str, value: object, words: str) -> None:
    [event] = world.hear("/org/nestd1", "PropertiesChanged", ["org.nestd1.Manager", {name: value}, []])
    assert line(event) == words
    assert world.hear("/org/nestd1", "PropertiesChanged", ["org.nestd1.Manager", {name: value}, []]) == []


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("RebootRequired", False, "no reboot is required any more"),
        ("PendingChange", "", "no change waits any more"),
        ("Obstacle", "", "nothing is in the way any more"),
    ],
)
def test_what_is_over(world: World, name: str, value: object, words: str) -> None:
    world.hear("/org/nestd1", "PropertiesChanged", ["org.nestd1.Manager", {name: "x"}, []])
    assert said(
        world.hear("/org/nestd1", "PropertiesChanged", ["org.nestd1.Manager", {name: value}, []])
    ) == [words]


@pytest.mark.parametrize(
    ("path", "member", "values"),
    [
        ("/org/nestd1", "Unheard", ["x"]),
        ("/org/nestd1", "ModuleEvent", ["add"]),
        ("/org/nestd1", "Drift", [1, 2, 3]),
        ("/org/nestd1", "GuestExited", []),
        ("/org/nestd1", "InterfacesAdded", [DEMO]),
        ("/org/nestd1", "InterfacesAdded", [DEMO, {GUEST: 7}]),
        ("/org/nestd1", "InterfacesAdded", ["/org/nestd1/x", {"org.nestd1.New": {"Name": "x"}}]),
        ("/org/nestd1", "InterfacesRemoved", ["/org/nestd1/guest/y", [GUEST]]),
        ("/org/nestd1", "InterfacesRemoved", [DEMO, ["org.nestd1.New"]]),
        ("/org/nestd1/job/9", "Completed", [True, ""]),
        (DEMO, "PropertiesChanged", [LAB, {"State": "running"}, []]),
        (TOWN, "PropertiesChanged", [LAB, {"Nodes": [["town-1"]]}, []]),
        (DEMO, "PropertiesChanged", [GUEST, 7]),
        ("/org/nestd1", "PropertiesChanged", ["org.nestd1.Manager", {"Unheard": 7}, []]),
        ("/org/nestd1", "PropertiesChanged", []),
    ],
)
def test_what_is_no_event(world: World, path: str, member: str, values: list[Any]) -> None:
    assert world.hear(path, member, values) == []


def test_last_words_of_another_shape_are_not_told(world: World) -> None:
    [event] = world.hear(DEMO, "PropertiesChanged", [GUEST, {"LastWords": "bye"}, []])
    assert line(event) == ""


def test_nestd_is_back(world: World) -> None:
    world.hear("/org/nestd1", "InterfacesAdded", [TURN, {JOB: {"Operation": "enable"}}])
    another = A_GUEST | {"Started": 5, "State": "starting"}
    objects = {DEMO: {GUEST: another}, f"{DEMO}2": {GUEST: GONE}}
    status = STATUS | {"nested": "off", "users": 9}
    events = world.again(World(status, objects))
    assert [(event.name, event.values.get("name")) for event in events] == [
        ("lab-removed", "town"),
        ("property-changed", None),
        ("guest-added", "demo"),  # another one of that name
        ("guest-added", "gone"),
    ]
    assert world.again(World(status, objects)) == []
    running = {**objects, DEMO: {GUEST: another | {"State": "running"}}}
    [event] = world.again(World(status, running))
    assert event.values == {"name": "demo", "changed": {"state": "running"}}


def test_colours_are_for_who_has_them(world: World) -> None:
    [event] = world.hear("/org/nestd1", "Drift", ["on", "off", "because\x1b[0m"])
    assert line(event, Style(True)) == "\x1b[31mnesting is off, and nestd was told on: because\\x1b[0m\x1b[0m"
    for name in ("nestd-gone", "nestd-back", "module"):
        values = {"version": "1", "action": "remove", "module": "kvm"}
        assert line(Event(name, values)) in (
            "nestd went away",
            "nestd is back, version 1",
            "module kvm was unloaded",
        )
