# SPDX-License-Identifier: LGPL-2.1-or-later
"""systemd's units over a real bus, both kinds, with a fake systemd."""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from nestd import tasks
from nestd.bus.connection import Connection
from nestd.errors import NO_REPLY, CallFailed
from nestd.guestmodel import GuestSpec
from nestd.guests import sandbox
from nestd.host import units as units_of_systemd
from nestd.host.services import Signal, bus_label_escape, plain
from nestd.host.units import JobFailed, UnitExists, Units, unit_path
from nestd.wire.library import Variant
from tests.guests.house import NOBODY, House, run
from tests.support import loop
from tests.support.privatebus import Kind

UNIT = "nestd-guest-x.service"


def _service(*argv: str) -> list[tuple[str, Variant]]:
    return sandbox.properties(GuestSpec("x", "x"), NOBODY, argv, kvm_group=False)


async def _until(units: Units, state: str) -> None:
    async with tasks.timeout(20):
        while (await units.matching(UNIT)).get(UNIT, "") != state:
            await tasks.sleep(0.01)


def _input(pid: int) -> os.stat_result:
    return Path(f"/proc/{pid}/fd/0").stat()


def _play(scenario: Callable[[Units], Awaitable[None]], kind: Kind = Kind.DAEMON) -> None:
    async def connected(house: House) -> None:
        connection = await Connection.connect(house.address)
        try:
            await scenario(Units(connection))
        finally:
            await connection.close()

    run(connected, kind=kind)


@pytest.mark.parametrize("kind", list(Kind))
def test_a_unit_from_start_to_end(kind: Kind) -> None:
    async def scenario(units: Units) -> None:
        watch = await units.follow(UNIT)
        await units.start_transient(UNIT, _service("/bin/sleep", "600"))
        await units.settle(watch)
        assert watch.known["MainPID"] > 1
        assert len(watch.known["InvocationID"]) == 16
        assert not watch.ended.done()
        assert await units.matching("nestd-guest-*.service") == {UNIT: "active"}
        with pytest.raises(UnitExists):
            await units.start_transient(UNIT, _service("/bin/sleep", "600"))
        await units.kill(UNIT, 9)
        async with tasks.timeout(20):
            known = await watch.ended
        assert (known["ActiveState"], known["Result"], known["ExecMainStatus"]) == ("failed", "signal", 9)
        assert await units.matching("nestd-guest-*.service") == {UNIT: "failed"}
        await units.reset_failed(UNIT)
        assert await units.matching("nestd-guest-*.service") == {}
        await watch.close()
        await watch.close()

    _play(scenario, kind)


def test_a_stop_and_an_end_that_came_before_anybody_looked() -> None:
    async def scenario(units: Units) -> None:
        watch = await units.follow(UNIT)
        await units.start_transient(UNIT, _service("/bin/true"))
        await _until(units, "")
        assert not watch.ended.done()
        await units.settle(watch)
        assert watch.ended.result()["Result"] == "success"
        await watch.close()
        await units.start_transient(UNIT, _service("/bin/sleep", "600"))
        await units.stop(UNIT)
        await _until(units, "failed")

    _play(scenario)


class _Told(NamedTuple):
    body: list[Any]
    path: str = unit_path(UNIT)
    interface: str = "org.freedesktop.DBus.Properties"
    member: str = "PropertiesChanged"
    sender: str = ":1.0"


class _Ending:
    """A systemd that tells of the unit's end between the two answers in which the properties are read."""

    def __init__(self) -> None:
        self._state = "active"
        self._hear: Callable[[Signal], None] | None = None

    async def subscribe(self, _: str, handler: Callable[[Signal], None]) -> Callable[[], Awaitable[None]]:
        self._hear = handler
        return self._leave

    async def _leave(self) -> None:
        self._hear = None

    async def call(self, *asked: Any, **_: Any) -> list[Any]:
        if asked[3] != "GetAll":
            return []
        [interface] = asked[5]
        if interface == units_of_systemd.UNIT:
            return [{"ActiveState": Variant("s", self._state)}]
        if self._hear and self._state == "active":
            self._state = "inactive"
            self._hear(_Told([units_of_systemd.UNIT, {"ActiveState": Variant("s", self._state)}, []]))
        return [{}]


def test_an_end_that_comes_while_the_properties_are_read() -> None:
    async def main() -> None:
        units = Units(_Ending())
        watch = await units.follow(UNIT)
        await units.settle(watch)
        assert watch.ended.done()
        await watch.close()

    loop.run(main())


def test_a_unit_that_cannot_start() -> None:
    async def scenario(units: Units) -> None:
        with pytest.raises(JobFailed, match="failed"):
            await units.start_transient(UNIT, _service("/nowhere/to/be/found"))
        assert (await units.properties(UNIT))["ExecMainStatus"] == 203

    _play(scenario)


def test_a_descriptor_is_handed_over_and_stays_the_callers() -> None:
    ours, theirs = socket.socketpair()

    async def scenario(units: Units) -> None:
        properties = [*_service("/bin/cat"), ("StandardInputFileDescriptor", Variant("h", 0))]
        watch = await units.follow(UNIT)
        await units.start_transient(UNIT, properties, fds=[theirs.fileno()])
        await units.settle(watch)
        inode = os.fstat(theirs.fileno()).st_ino
        assert _input(watch.known["MainPID"]).st_ino == inode
        theirs.shutdown(socket.SHUT_WR)
        ours.shutdown(socket.SHUT_WR)
        async with tasks.timeout(20):
            assert (await watch.ended)["Result"] == "success"
        await watch.close()

    with ours, theirs:
        before = len(list(Path("/proc/self/fd").iterdir()))
        _play(scenario)
        assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_units_that_are_not_there() -> None:
    async def scenario(units: Units) -> None:
        await units.stop(UNIT)
        await units.kill(UNIT, 9)
        await units.reset_failed(UNIT)
        assert (await units.properties(UNIT))["ActiveState"] == "inactive"

    _play(scenario)


class _NoSystemd:
    """A bus without systemd, or one that answers nothing but errors."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.calls: list[str] = []

    async def call(self, *where: object, **how: object) -> list[object]:
        self.calls.append(str(where[3]))
        raise CallFailed(self._name, "no")

    async def subscribe(self, rule: str, handler: object) -> Callable[[], Awaitable[None]]:
        raise AssertionError("nothing to subscribe to")


class _Late(_NoSystemd):
    """A bus on which systemd takes calls and does not answer the one that starts a unit."""

    def __init__(self) -> None:
        super().__init__(NO_REPLY)
        self.limit: object = None

    async def call(self, *where: object, **how: object) -> list[object]:
        if where[3] == "Subscribe":
            return []
        self.limit = how["limit"]
        return await super().call(*where, **how)

    async def subscribe(self, rule: str, handler: object) -> Callable[[], Awaitable[None]]:
        return self._leave

    async def _leave(self) -> None:
        self.calls.append("left")


def test_a_systemd_that_does_not_answer_a_start_is_late() -> None:
    bus = _Late()
    with pytest.raises(JobFailed, match="timeout"):
        loop.run(Units(bus).start_transient(UNIT, [], 40.0))
    assert bus.limit == 40.0
    assert bus.calls == ["StartTransientUnit", "left"]


def test_without_systemd() -> None:
    bus = _NoSystemd("org.freedesktop.DBus.Error.ServiceUnknown")
    for attempt in (Units(bus).start_transient(UNIT, []), Units(bus).follow(UNIT), Units(bus).stop(UNIT)):
        with pytest.raises(CallFailed, match="ServiceUnknown"):
            loop.run(attempt)
    assert bus.calls == ["Subscribe", "Subscribe", "StopUnit"]


@pytest.mark.parametrize(
    ("label", "escaped"),
    [
        ("nestd-guest-a.service", "nestd_2dguest_2da_2eservice"),
        ("a1", "a1"),
        ("1a", "_31a"),
        ("", "_"),
        ("é_", "_c3_a9_5f"),
    ],
)
def test_object_paths_as_systemd_escapes_them(label: str, escaped: str) -> None:
    assert bus_label_escape(label) == escaped
    assert unit_path(label) == f"/org/freedesktop/systemd1/unit/{escaped}"


def test_variants_are_taken_off_at_any_depth() -> None:
    value = {"a": Variant("a{sv}", {"b": Variant("as", ["c"])}), "d": [Variant("u", 1)]}
    assert plain(value) == {"a": {"b": ["c"]}, "d": [1]}
