# SPDX-License-Identifier: LGPL-2.1-or-later
"""Long tools as transient units, of a fake systemd that really starts them; and as children without one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from nestd import tasks
from nestd.bus.connection import Connection
from nestd.errors import ToolFailed, ToolMissing
from nestd.host import outside
from nestd.host.commands import Commands
from nestd.host.units import Units
from tests.guests.house import House, run
from tests.support import loop
from tests.support.privatebus import Kind

SYSTEM = "/usr/bin:/bin"


def play(scenario: Callable[[Units, Commands], Awaitable[None]], kind: Kind = Kind.DAEMON) -> None:
    async def connected(house: House) -> None:
        connection = await Connection.connect(house.address)
        try:
            # journalctl is the fake systemd's.
            await scenario(Units(connection), Commands(f"{house.top}/bin:{SYSTEM}"))
        finally:
            await connection.close()

    run(connected, kind=kind)


@pytest.mark.parametrize("kind", list(Kind))
def test_a_tool_runs_to_its_end_and_its_last_words_are_in_the_error(kind: Kind, tmp_path: Path) -> None:
    async def scenario(units: Units, commands: Commands) -> None:
        done = tmp_path / "done"
        await outside.run(units, commands, ("sh", "-c", f"sleep 0.2; echo ${{LC_ALL%.*}} > {done}"), 20)
        assert done.read_text() == "C\n"
        for _ in range(2):  # a unit that failed is not in the way of the next
            with pytest.raises(ToolFailed, match="no room on /boot") as failed:
                await outside.run(units, commands, ("sh", "-c", "echo no room on /boot >&2; exit 3"), 20)
            assert failed.value.code == 3
        assert await units.matching(outside.UNIT) == {}

    play(scenario, kind)


def test_a_tool_that_is_not_there() -> None:
    async def scenario(units: Units, commands: Commands) -> None:
        with pytest.raises(ToolMissing, match="update-nothing is not installed"):
            await outside.run(units, commands, ("update-nothing",), 20)

    play(scenario)


def test_what_an_earlier_daemon_has_started_is_waited_for(tmp_path: Path) -> None:
    async def scenario(units: Units, commands: Commands) -> None:
        await outside.settle(units, 20)  # nothing runs
        done = tmp_path / "done"
        earlier = tasks.create_task(
            outside.run(units, commands, ("sh", "-c", f"sleep 0.5; : > {done}; exit 1"), 20)
        )
        while outside.UNIT not in await units.matching(outside.UNIT):
            await tasks.sleep(0.01)
        earlier.cancel()
        assert not done.exists()
        await outside.settle(units, 20)
        assert done.exists()
        await outside.run(units, commands, ("true",), 20)

    play(scenario)


def test_a_tool_that_does_not_end_in_time_is_ended() -> None:
    """systemd does it by TimeoutStartUSec (the emulated machine proves that); here nobody does but nestd."""
    commands = Commands(SYSTEM)
    with pytest.raises(ToolFailed, match=r"stopped after 0\.2 s") as failed:
        loop.run(outside.run(None, commands, ("sleep", "60"), 0.2))
    assert failed.value.code == -1


def test_without_systemd_a_tool_is_a_child(tmp_path: Path) -> None:
    commands = Commands(SYSTEM)
    loop.run(outside.run(None, commands, ("touch", str(tmp_path / "done")), 20))
    assert (tmp_path / "done").exists()
    with pytest.raises(ToolFailed, match="what it said last"):
        loop.run(outside.run(None, commands, ("sh", "-c", "echo what it said last; exit 1"), 20))
    loop.run(outside.settle(None, 20))
