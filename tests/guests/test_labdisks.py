# SPDX-License-Identifier: LGPL-2.1-or-later
"""The removal of a lab's disks leaves no unit behind, whatever becomes of it."""

from __future__ import annotations

import os
from typing import Any

import pytest

from nestd import tasks
from nestd.bus.connection import Connection
from nestd.errors import Failed
from nestd.guests import labdisks, labplaces
from nestd.host.root import Root
from nestd.host.units import Units
from tests.guests.house import NOBODY, House, run


class _Stuck:
    """The bus, on which the answer to one method never comes; `done`: it has been called, and answered."""

    def __init__(self, connection: Connection, member: str) -> None:
        self.subscribe = connection.subscribe
        self.done = tasks.Event()
        self._connection = connection
        self._member = member

    async def call(self, *arguments: Any, **more: Any) -> list[Any]:
        """As bus/connection.py has it: the method is the fourth argument."""
        answer = await self._connection.call(*arguments, **more)
        if arguments[3] == self._member:
            self.done.set()
            await tasks.Event().wait()
        return answer


def disks(house: House) -> Root:
    """A machine with the disks of the lab town."""
    folder = house.top / "var/lib" / labplaces.state("town")
    folder.mkdir(parents=True)
    (folder / "1-0.qcow2").touch()
    os.chown(folder, NOBODY.uid, NOBODY.gid)
    return Root(str(house.top))


@pytest.mark.parametrize("member", ["StartTransientUnit", "CleanUnit", "GetAll"])
def test_who_leaves_meanwhile_leaves_no_unit(member: str) -> None:
    async def scenario(house: House) -> None:
        root = disks(house)
        async with house.nestd() as nestd:
            bus = _Stuck(nestd.connection, member)
            removing = tasks.create_task(labdisks.remove(root, Units(bus), "town"))
            await bus.done.wait()
            removing.cancel()
            await tasks.wait([removing])
            assert removing.cancelled()
            assert await nestd.units.matching("nestd-clean-*") == {}
            await labdisks.remove(root, nestd.units, "town")
            assert not labdisks.exists(root, "town")

    run(scenario)


def test_what_somebody_else_removes_is_left_to_him() -> None:
    async def scenario(house: House) -> None:
        root = disks(house)
        async with house.nestd() as nestd:
            bus = _Stuck(nestd.connection, "StartTransientUnit")
            removing = tasks.create_task(labdisks.remove(root, Units(bus), "town"))
            await bus.done.wait()
            with pytest.raises(Failed, match="is being removed already"):
                await labdisks.remove(root, nestd.units, "town")
            assert [*await nestd.units.matching("nestd-clean-*")] == ["nestd-clean-town.service"]
            removing.cancel()
            await tasks.wait([removing])

    run(scenario)
