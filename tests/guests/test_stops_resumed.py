# SPDX-License-Identifier: LGPL-2.1-or-later
"""Stops that an earlier nestd began, and others while none was there: the next one goes on with them."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from nestd import tasks
from nestd.guestmodel import GuestRecord, GuestState
from nestd.guests.life import POWER_BUTTON, UNIT
from tests.guests.house import House, run, until
from tests.support.fakeqemu import Manner

DAY = 86_400


def _rewritten(house: House, **fields: Any) -> None:
    path = house.top / "run/nestd/registry/demo.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


async def _begun(house: House, limit: float, stopping: str) -> GuestRecord:
    """What a daemon knew that ended in the middle of a stop."""
    async with house.nestd() as first:
        await first.launch()
        stop = tasks.create_task(first.registry.stop("demo", limit))
        await until(lambda: first.registry.get("demo").stopping == stopping)
        record = first.registry.get("demo")
    with pytest.raises(tasks.Cancelled):
        await stop
    return record


def test_a_stop_outlives_the_daemon_that_began_it() -> None:
    async def scenario(house: House) -> None:
        record = await _begun(house, 3600, POWER_BUTTON)
        async with house.nestd() as second:
            # Found as it was, and told to nobody twice.
            assert second.registry.records == (record,)
            await tasks.sleep(0.1)
            assert second.told == [("added", record)]
            await second.registry.stop("demo", 0.05)
            assert second.registry.find("demo").result == "signal"

    run(scenario, Manner.IGNORES_THE_BUTTON)


def test_so_does_one_that_had_hardly_begun() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as first:
            await first.launch()
            stop = tasks.create_task(first.registry.stop("demo", 3600))
            await tasks.sleep(0)
        with pytest.raises(tasks.Cancelled):
            await stop
        async with house.nestd() as second:
            if second.registry.records:  # the button was pressed or not
                await second.registry.stop("demo")
            assert second.registry.find("demo").over

    run(scenario)


@pytest.mark.parametrize("left", [0.5, -3600.0])
def test_its_time_runs_on_and_the_button_is_not_pressed_again(left: float) -> None:
    """The guest would power itself off at once, and end well."""

    async def scenario(house: House) -> None:
        async with house.nestd() as first:
            await first.launch()
        deadline = int((time.time() + left) * 1e6)
        _rewritten(house, state="stopping", stopping=POWER_BUTTON, stop_deadline=deadline)
        async with house.nestd() as second:
            await until(lambda: second.registry.records == ())
            assert time.time() * 1e6 >= deadline
            ended = second.registry.find("demo")
            assert (ended.result, ended.stopping, ended.stop_deadline) == ("signal", "", 0)
            told = [record.stopping for what, record in second.told if what == "changed" and not record.over]
            assert told[-1:] == [UNIT]

    run(scenario)


def test_a_clock_that_was_put_back_stops_nothing_for_longer_than_a_day() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as first:
            await first.launch()
        _rewritten(house, state="stopping", stopping=POWER_BUTTON, stop_deadline=1 << 62)
        async with house.nestd() as second:
            await until(lambda: second.registry.get("demo").stop_deadline <= (time.time() + DAY) * 1e6)
            assert second.registry.get("demo").state is GuestState.STOPPING
            await second.registry.kill("demo")

    run(scenario)


def test_a_unit_that_is_being_stopped_is_shown_so() -> None:
    async def scenario(house: House) -> None:
        before = await _begun(house, 0.0, UNIT)
        for _ in range(2):
            async with house.nestd() as next_one:
                [record] = next_one.registry.records
                assert (record.state, record.stopping) == (GuestState.STOPPING, UNIT)
                assert record.stop_deadline >= before.stop_deadline
        async with house.nestd() as last:
            await last.registry.kill("demo")
            assert last.registry.records == ()

    run(scenario, Manner.IGNORES_SIGTERM)


def test_so_is_one_that_somebody_else_stops() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as first:
            record = await first.launch()
            await first.units.stop(record.unit)
        async with house.nestd() as second:
            [found] = second.registry.records
            assert (found.state, found.stopping, found.pid) == (GuestState.STOPPING, UNIT, record.pid)
            await second.registry.kill("demo")

    run(scenario, Manner.IGNORES_SIGTERM)


def test_a_stop_that_systemd_refuses_leaves_a_guest_that_runs() -> None:
    async def scenario(house: House) -> None:
        await _begun(house, 3600, POWER_BUTTON)
        _rewritten(house, stop_deadline=1)
        (house.top / "refuse-StopUnit").touch()
        async with house.nestd() as second:
            await until(lambda: second.registry.get("demo").state is GuestState.RUNNING)
            left = second.registry.get("demo")
            assert (left.stopping, left.stop_deadline) == ("", 0)
            await second.registry.kill("demo")

    run(scenario, Manner.IGNORES_THE_BUTTON)
