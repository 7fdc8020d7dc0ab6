# SPDX-License-Identifier: LGPL-2.1-or-later
"""Running guests: followed to their end, stopped, killed, found again by the next daemon."""

from __future__ import annotations

import json
import os
import signal
import socket

import pytest

from nestd import tasks
from nestd.errors import Busy, Failed, GuestNotFound
from nestd.guestmodel import GuestState
from tests.guests.house import House, Nestd, run, until
from tests.support import loop
from tests.support.fakeqemu import Manner
from tests.support.privatebus import Kind


def _records(house: House) -> list[str]:
    folder = house.top / "run/nestd/registry"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


async def _forgotten(house: House, nestd: Nestd) -> None:
    await until(lambda: not nestd.registry.records and not _records(house) and not house.runs())


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
            assert (nestd.told[-1][1].pid, nestd.told[-1][1].exit_status) == (0, 0)
            await _forgotten(house, nestd)

    run(scenario, kind=kind)


def test_after_the_timeout_the_unit_is_stopped() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            await nestd.launch()
            await nestd.registry.stop("demo", 0.05)
            assert nestd.story()[-1] == ("exited", "failed", "signal")
            assert nestd.told[-1][1].exit_status == signal.SIGTERM

    run(scenario, Manner.IGNORES_THE_BUTTON)


def test_a_monitor_that_cannot_be_reached_is_no_reason_to_wait() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            await nestd.launch()
            (house.top / "run/nestd/guests/demo/qmp").unlink()
            await nestd.registry.stop("demo", 3600)
            assert nestd.story()[-1] == ("exited", "failed", "signal")

    run(scenario)


def test_kill_reaches_what_ignores_everything_else() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            await nestd.launch()
            stopping = tasks.create_task(nestd.registry.stop("demo", 3600))
            await until(lambda: nestd.registry.get("demo").state is GuestState.STOPPING)
            await nestd.registry.kill("demo")
            await stopping
            assert nestd.told[-1][1].exit_status == signal.SIGKILL
            await _forgotten(house, nestd)

    run(scenario, Manner.IGNORES_SIGTERM)


def test_an_end_that_nobody_asked_for_is_told() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            record = await nestd.launch()
            os.kill(record.pid, signal.SIGSEGV)
            await until(lambda: nestd.story()[-1] == ("exited", "failed", "signal"))
            await _forgotten(house, nestd)
            # The failed unit was reset, so the name is free.
            await nestd.launch()
            await nestd.registry.kill("demo")

    run(scenario)


def test_a_guest_that_is_not_there() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            for attempt in (nestd.registry.stop, nestd.registry.kill):
                with pytest.raises(GuestNotFound, match=r"no guest 'a.x1bb'"):
                    await attempt("a\x1bb")
            for question in (nestd.registry.get, nestd.registry.open_console, nestd.registry.console_log):
                with pytest.raises(GuestNotFound):
                    question("demo")

    run(scenario)


def test_the_next_daemon_finds_the_guests_again() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as first:
            record = await first.launch(cpu="qemu64", vcpus=2)
            ended = await first.launch("ended")
        # Nobody notices the end of this one.
        os.kill(ended.pid, signal.SIGKILL)
        await until(lambda: house.runs() == ["demo"])
        async with house.nestd() as second:
            assert second.registry.records == (record,)
            assert second.story() == [("added", "running", "")]
            assert _records(house) == ["demo.json"]
            await second.registry.stop("demo")
            # The failed unit of the other one was reset.
            await second.launch("ended")
            await second.registry.kill("ended")

    run(scenario)


@pytest.mark.parametrize("text", ["", '{"name": "demo"}', "[" * 100_000, None, "another pid"])
def test_a_guest_without_a_good_record_is_adopted(text: str | None) -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as first:
            record = await first.launch(cpu="qemu64", cpu_features=("-avx",), memory=64 << 20, vcpus=2)
        path = house.top / "run/nestd/registry/demo.json"
        if text is None:
            path.unlink()
        elif text == "another pid":
            path.write_text(json.dumps({**json.loads(path.read_text()), "pid": 1, "vcpus": 9}))
        else:
            path.write_text(text)
        async with house.nestd() as second:
            assert second.registry.records == (record,)
            assert _records(house) == ["demo.json"]
            await second.registry.kill("demo")

    run(scenario)


def test_a_guest_whose_monitor_is_gone_is_adopted_as_far_as_it_is_known() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as first:
            record = await first.launch()
        for lost in ("run/nestd/registry/demo.json", "run/nestd/guests/demo/qmp"):
            (house.top / lost).unlink()
        async with house.nestd() as second:
            [adopted] = second.registry.records
            assert (adopted.pid, adopted.owner, adopted.nesting) == (record.pid, record.owner, False)
            await second.registry.kill("demo")

    run(scenario)


def test_a_launch_that_a_crash_cut_short_is_cleared_away() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as first:
            await first.start_only("demo")
            await until((house.top / "run/nestd/guests/demo/qmp").exists)
        async with house.nestd() as second:
            assert second.registry.records == ()
            await until(lambda: house.runs() == [])

    run(scenario)


def test_the_console() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            record = await nestd.launch()
            with socket.socket(fileno=nestd.registry.open_console("demo")) as console:
                assert console.getpeername() == str(house.top / "run/nestd/guests/demo/console")
                assert console.getblocking()
            proc = house.top / f"proc/{record.pid}"
            proc.mkdir(parents=True)
            (proc / "root").symlink_to(house.top)
            assert nestd.registry.console_log("demo") == b"hello from the guest\r\n"
            log = house.top / "run/nestd/console/demo"
            log.unlink()
            log.symlink_to("/etc/hostname")
            with pytest.raises(Failed, match="cannot be read"):
                nestd.registry.console_log("demo")
            log.unlink()
            log.write_text("root's own")
            with pytest.raises(Failed, match="replaced by something else"):
                nestd.registry.console_log("demo")
            await nestd.registry.kill("demo")

    run(scenario)


def test_a_console_that_others_wait_for_is_busy() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            await nestd.launch()
            waiting = []
            with pytest.raises(Busy, match="in use"):
                for _ in range(10):
                    waiting.append(nestd.registry.open_console("demo"))
            for descriptor in waiting:
                os.close(descriptor)
            (house.top / "run/nestd/guests/demo/console").unlink()
            with pytest.raises(Failed, match="cannot be opened"):
                nestd.registry.open_console("demo")
            await nestd.registry.kill("demo")

    run(scenario)
