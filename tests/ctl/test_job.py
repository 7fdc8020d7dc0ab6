# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is heard of a job, and what is not."""

from __future__ import annotations

from typing import Any

import pytest

from nestd.ctl.client import _plain
from nestd.ctl.job import JobWatch
from nestd.wire import message
from nestd.wire.frame import MESSAGE_LIMIT, Framer
from nestd.wire.library import Variant

JOB = "org.nestd1.Job"
PATH = "/org/nestd1/job/7"
OBJECTS, PROPERTIES = (f"org.freedesktop.DBus.{name}" for name in ("ObjectManager", "Properties"))


def hear(watch: JobWatch, path: str, interface: str, member: str, signature: str, *values: Any) -> None:
    """Have it hear a signal, as the client hands it over."""
    framer = Framer(MESSAGE_LIMIT)
    framer.feed(message.signal(1, path, interface, member, signature, values))
    frame = framer.next()
    assert frame is not None
    received = message.parse(frame)
    watch.hear(received.header, [_plain(value) for value in received.values()])


def come(watch: JobWatch, operation: str = "enable", path: str = PATH, interface: str = JOB) -> None:
    known = {"Operation": Variant("s", operation), **moved("write a file", 0.0)}
    hear(watch, "/org/nestd1", OBJECTS, "InterfacesAdded", "oa{sa{sv}}", path, {interface: known})


def moved(step: str, part: float) -> dict[str, Variant]:
    return {"Step": Variant("s", step), "Progress": Variant("d", part)}


def move(watch: JobWatch, step: str, part: float, path: str = PATH) -> None:
    hear(watch, path, PROPERTIES, "PropertiesChanged", "sa{sv}as", JOB, moved(step, part), [])


def test_a_job_is_followed_from_its_coming_to_its_going() -> None:
    watch = JobWatch("enable", "Turning nesting on")
    assert watch.words() == "Turning nesting on"
    come(watch)
    assert watch.words() == "0%: write a file"
    move(watch, "run update-grub\x1b[2J", 1 / 3)
    assert watch.words() == "33%: run update-grub\\x1b[2J"
    hear(watch, "/org/nestd1", OBJECTS, "InterfacesRemoved", "oas", "/org/nestd1/guest/demo", [JOB])
    assert watch.words().startswith("33%")
    hear(watch, "/org/nestd1", OBJECTS, "InterfacesRemoved", "oas", PATH, [JOB])
    assert watch.words() == "Turning nesting on"
    move(watch, "something", 0.5)
    assert watch.words() == "Turning nesting on"


def test_of_other_objects_nothing_is_heard() -> None:
    watch = JobWatch("enable", "")
    come(watch, operation="disable")
    come(watch, path="/org/nestd1/guest/demo", interface="org.nestd1.Guest")
    move(watch, "something", 0.5)
    assert watch.words() == ""
    come(watch)
    move(watch, "of another", 0.5, path="/org/nestd1/job/6")
    hear(watch, PATH, JOB, "Completed", "bs", False, "no")
    assert watch.words() == "0%: write a file"


@pytest.mark.parametrize(
    ("member", "signature", "values"),
    [
        ("InterfacesAdded", "", []),
        ("InterfacesAdded", "s", [PATH]),
        ("InterfacesAdded", "ou", [PATH, 7]),
        ("InterfacesAdded", "oa{su}", [PATH, {JOB: 7}]),
        ("InterfacesAdded", "oa{sa{sv}}", [PATH, {JOB: {"Operation": Variant("s", "enable")}}]),
        ("InterfacesRemoved", "", []),
    ],
)
def test_a_nestd_that_speaks_otherwise_is_no_error(member: str, signature: str, values: list[Any]) -> None:
    watch = JobWatch("enable", "Turning nesting on")
    hear(watch, "/org/nestd1", OBJECTS, member, signature, *values)
    assert watch.words() == "Turning nesting on"
    hear(watch, PATH, PROPERTIES, "PropertiesChanged", "sa{sv}as", JOB, {"Step": Variant("u", 7)}, [])
    assert watch.words() == "Turning nesting on"
