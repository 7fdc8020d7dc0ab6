# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest's life: the power button, the stopping of its unit, its end."""

from __future__ import annotations

import os
import signal
import time

import pytest

from nestd import tasks
from nestd.errors import Failed
from nestd.guestmodel import GuestState
from nestd.guests.records import load
from nestd.host.root import Root
from tests.guests.house import House, records, run, until
from tests.support import loop
from tests.support.fakeqemu import Manner
from tests.support.privatebus import Kind


@pytest.mark.parametrize("kind", list(Kind))
def test_the_power_button_ends_a_guest(kind: Kind) -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            await nestd.launch()
            assert (house.top / "run/nestd/registry/demo.json").stat().st_mode & 0o777 == 0o600
            assert (house.top / "run/nestd/registry").stat().st_mode & 0o777 == 0o700
            stops = await loop.together(nestd.registry.stop("demo"), nestd.registry.stop("demo"))
            assert stops == [None, None]
            assert nestd.story() == [
                ("added", "running", ""),
                ("changed", "stopping", ""),
                ("exited", "exited", "success"),
            ]
            ended = nestd.told[-1][1]
            assert (ended.pid, ended.exit_status, ended.stopping, ended.stop_deadline) == (0, 0, "", 0)
            assert nestd.registry.records == () and house.runs() == []

    run(scenario, kind=kind)


def test_what_is_done_to_stop_it_is_told() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            await nestd.launch()
            before = time.time()
            await nestd.registry.stop("demo", 0.3)
            told = [record for what, record in nestd.told if what == "changed" and not record.over]
            assert [(record.state, record.stopping) for record in told] == [
                (GuestState.STOPPING, "power-button"),
                (GuestState.STOPPING, "unit"),
            ]
            # The one that systemd gives it is 10 seconds.
            button, unit = (record.stop_deadline / 1e6 - before for record in told)
            assert 0.3 <= button < unit and unit >= 10.3
            [ended] = [record for what, record in nestd.told if what == "exited"]
            assert (ended.result, ended.exit_status) == ("signal", signal.SIGTERM)

    run(scenario, Manner.IGNORES_THE_BUTTON)


def test_the_first_timeout_to_run_out_counts() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            await nestd.launch()
            patient = tasks.create_task(nestd.registry.stop("demo", 3600))
            await until(lambda: nestd.registry.get("demo").stopping == "power-button")
            first = nestd.registry.get("demo").stop_deadline
            other = tasks.create_task(nestd.registry.stop("demo", 7200))
            await tasks.sleep(0.2)
            assert nestd.registry.get("demo").stop_deadline == first
            await nestd.registry.stop("demo", 0.05)
            await patient
            await other
            assert nestd.told[-1][1].result == "signal"

    run(scenario, Manner.IGNORES_THE_BUTTON)


def test_a_stop_goes_to_its_end_whoever_waits() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            await nestd.launch()
            stopping = tasks.create_task(nestd.registry.stop("demo", 0.5))
            await until(lambda: nestd.registry.get("demo").stopping == "power-button")
            stopping.cancel()
            await until(lambda: nestd.registry.records == ())
            assert nestd.registry.find("demo").result == "signal"

    run(scenario, Manner.IGNORES_THE_BUTTON)


def test_a_monitor_that_cannot_be_reached_is_no_reason_to_wait() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            await nestd.launch()
            (house.top / "run/nestd/guests/demo/qmp").unlink()
            await nestd.registry.stop("demo", 3600)
            assert nestd.registry.find("demo").result == "signal"

    run(scenario)


def test_a_qemu_that_does_not_answer_is_no_reason_to_wait_either() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            record = await nestd.launch()
            os.kill(record.pid, signal.SIGSTOP)
            stopping = tasks.create_task(nestd.registry.stop("demo", 3600))
            await until(lambda: nestd.registry.get("demo").stopping == "unit")
            os.kill(record.pid, signal.SIGCONT)
            await stopping

    run(scenario)


def test_systemd_that_refuses_is_quoted_and_nothing_is_stopping() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            await nestd.launch()
            (house.top / "refuse-StopUnit").touch()
            with pytest.raises(Failed, match=r"systemd does not stop nestd-guest-demo\.service: no"):
                await nestd.registry.stop("demo", 0.05)
            left = nestd.registry.get("demo")
            assert (left.state, left.stopping, left.stop_deadline) == (GuestState.RUNNING, "", 0)
            assert load(Root(str(house.top)), "demo") == left
            await nestd.registry.kill("demo")

    run(scenario, Manner.IGNORES_THE_BUTTON)


def test_a_stop_whose_record_cannot_be_kept_is_gone_on_with() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            await nestd.launch()
            kept = house.top / "run/nestd/registry"
            kept.rename(house.top / "run/nestd/elsewhere")
            kept.write_text("no folder")
            await nestd.registry.stop("demo")
            assert nestd.registry.find("demo").result == "success"

    run(scenario)


def test_kill_reaches_what_ignores_everything_else() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            await nestd.launch()
            stopping = tasks.create_task(nestd.registry.stop("demo", 3600))
            await until(lambda: nestd.registry.get("demo").state is GuestState.STOPPING)
            await nestd.registry.kill("demo")
            await stopping
            assert nestd.registry.find("demo").exit_status == signal.SIGKILL
            assert house.runs() == [] and records(house) == ["demo.json"]

    run(scenario, Manner.IGNORES_SIGTERM)


def test_an_end_that_nobody_asked_for_is_told() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            record = await nestd.launch()
            os.kill(record.pid, signal.SIGSEGV)
            await until(lambda: ("exited", "failed", "signal") in nestd.story())
            # The failed unit is reset, so the name is free.
            await nestd.launch()
            await nestd.registry.kill("demo")

    run(scenario)
