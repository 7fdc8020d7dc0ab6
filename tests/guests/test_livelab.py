# SPDX-License-Identifier: LGPL-2.1-or-later
"""How a lab is noted: beside the loop, and one after the other."""

from __future__ import annotations

from pathlib import Path

from nestd import tasks
from nestd.guests import lab as values
from nestd.guests import labplaces
from nestd.guests.livelab import Ground, LiveLab
from nestd.host.commands import Commands
from tests.guests.house import NOBODY, FewAccounts, House, run
from tests.guests.town import Town, town


def lab(daemon: Town) -> LiveLab:
    """One with as much to be noted as there can be."""
    ground = Ground(
        *(daemon.root, Commands("/bin"), daemon.units, FewAccounts(), daemon.registry),
        *(lambda: daemon.launcher, "/bin"),
    )
    options = {"user-data": b"x" * (512 << 10)}
    return LiveLab(ground, values.new("town", NOBODY.uid, NOBODY.name, options))


def record(house: House) -> Path:
    return house.top / labplaces.record("town")[1:]


async def under_way(house: House, noting: tasks.Task[None]) -> bool:
    """Return when the record is being written, or has been: whether it is."""
    folder = record(house).parent
    while not noting.done():
        if folder.exists() and [path for path in folder.iterdir() if path.name.startswith(".")]:
            return True
        await tasks.sleep(0)
    return False


def test_others_go_on_meanwhile() -> None:
    async def scenario(house: House) -> None:
        async with town(house) as daemon:
            live, seen = lab(daemon), 0
            for _ in range(20):
                noting = tasks.create_task(live.note())
                seen += await under_way(house, noting)
                await noting
            assert seen and live.lab.doing == "create"

    run(scenario)


def test_who_leaves_while_it_is_noted_is_not_behind_who_comes() -> None:
    async def scenario(house: House) -> None:
        async with town(house) as daemon:
            live = lab(daemon)
            for _ in range(10):
                noting = tasks.create_task(live.note(doing="start", begun=(1,)))
                await under_way(house, noting)
                noting.cancel()
                await live.note(doing="", begun=())
                await tasks.wait([noting])
                assert (daemon.kept(), live.lab.doing, live.lab.begun) == ([("town", "")], "", ())
            noting = tasks.create_task(live.note(doing="remove"))
            await under_way(house, noting)
            noting.cancel()
            await live.erase()
            assert not [*record(house).parent.iterdir()]

    run(scenario)
