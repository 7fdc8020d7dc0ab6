# SPDX-License-Identifier: LGPL-2.1-or-later
"""One guest is stuck in everything that can be done to it; the others notice nothing."""

from __future__ import annotations

import os
import signal
from functools import partial

import pytest

from nestd import tasks
from nestd.errors import Busy
from tests.guests.house import House, Nestd, run, until
from tests.support.fakeqemu import Manner


async def _a_whole_life(nestd: Nestd, name: str) -> None:
    """Launched, shown, its console opened, stopped."""
    record = await nestd.launch(name)
    assert nestd.registry.get(name) == record
    os.close(await nestd.registry.open_console(name))
    await nestd.registry.stop(name)
    assert nestd.registry.find(name).result == "success"


def _is(nestd: Nestd, phase: str) -> bool:
    return nestd.registry.get("stuck").stopping == phase


async def _fill_console(nestd: Nestd, name: str) -> list[int]:
    """Connect to a console that nobody reads until no more can."""
    waiting = []
    with pytest.raises(Busy):
        while True:
            waiting.append(await nestd.registry.open_console(name))
    return waiting


def test_a_stuck_guest_delays_no_other() -> None:
    """Its QEMU is stopped, so it neither answers nor takes SIGTERM; what waits for it goes on waiting."""

    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            stuck = await nestd.launch("stuck")
            os.kill(stuck.pid, signal.SIGSTOP)
            consoles = await _fill_console(nestd, "stuck")
            stops = [tasks.create_task(nestd.registry.stop("stuck", limit)) for limit in (0, 3600)]
            # While the button is pressed in vain, and while systemd stops the unit in vain.
            for phase in ("power-button", "unit"):
                await until(partial(_is, nestd, phase))
                await _a_whole_life(nestd, "other")
                assert not any(stop.done() for stop in stops)
            for console in consoles:
                os.close(console)
            await nestd.registry.kill("stuck")
            for stop in stops:
                await stop

    run(scenario)


def test_a_launch_that_is_stuck_delays_no_other() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            stuck = tasks.create_task(nestd.launch("stuck"))
            await until((house.top / "run/nestd/guests/stuck/qmp").exists)
            house.manner(Manner.GOOD)
            await _a_whole_life(nestd, "other")
            assert not stuck.done()
            stuck.cancel()
            await tasks.wait({stuck})
            assert house.runs() == []

    run(scenario, Manner.SAYS_NOTHING)
