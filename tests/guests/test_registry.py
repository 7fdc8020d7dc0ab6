# SPDX-License-Identifier: LGPL-2.1-or-later
"""Guests by their names: while they run, and for a while after their end."""

from __future__ import annotations

import socket

import pytest

from nestd import tasks
from nestd.errors import Failed, GuestExists, GuestNotFound
from nestd.guestmodel import GuestState
from tests.guests.house import House, Nestd, records, run, until
from tests.support.fakeqemu import WORDS, Manner


def _learned(nestd: Nestd) -> bool:
    return nestd.registry.find("demo").last_words != ()


def test_an_ended_guest_tells_how_it_ended() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            record = await nestd.launch(require_nesting=False)
            await until(lambda: _learned(nestd) if nestd.registry.records == () else False)
            found = nestd.registry.find("demo")
            assert (found.state, found.result, found.exit_status) == (GuestState.FAILED, "exit-code", 1)
            # As QEMU says it, less what does not print.
            assert found.last_words == ("qemu-system-x86_64: [31m-kernel /nowhere: could not open it",)
            assert WORDS.startswith("qemu-system-x86_64: \x1b")
            assert record.started <= found.ended
            assert (found.pid, found.stopping, found.stop_deadline) == (0, "", 0)
            assert [what for what, _ in nestd.told] == ["added", "exited", "changed"]
            assert nestd.registry.records == () and records(house) == ["demo.json"]
            for question in (nestd.registry.get, nestd.registry.console_log):
                with pytest.raises(GuestNotFound, match="has ended: `nestctl show demo`"):
                    question("demo")
            for attempt in (nestd.registry.stop, nestd.registry.kill, nestd.registry.open_console):
                with pytest.raises(GuestNotFound, match="has ended"):
                    await attempt("demo")

    run(scenario, Manner.DIES_WHEN_IT_RUNS)


def test_a_qemu_that_said_nothing_has_no_last_words() -> None:
    async def scenario(house: House) -> None:
        asked = house.top / "asked"
        journalctl = house.top / "bin/journalctl"
        journalctl.write_text(journalctl.read_text().replace("exec ", f"echo x >> {asked}; exec "))
        async with house.nestd() as nestd:
            await nestd.launch()
            await nestd.registry.stop("demo")
            await until(asked.exists)
            assert nestd.registry.find("demo").last_words == ()
            assert nestd.registry.find("demo").result == "success"
            assert nestd.story()[-1] == ("exited", "exited", "success")

    run(scenario)


def test_a_journal_that_hangs_delays_nothing_but_the_words() -> None:
    async def scenario(house: House) -> None:
        (house.top / "bin/journalctl").write_text("#!/bin/sh\nexec sleep 1000\n")
        async with house.nestd() as nestd:
            for _ in range(3):
                await nestd.launch()
                await nestd.registry.stop("demo")
            assert nestd.registry.find("demo").ended
            assert [what for what, _ in nestd.told].count("forgotten") == 2

    run(scenario)


def test_a_new_guest_takes_the_place_of_the_one_that_ended() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            await nestd.launch()
            await nestd.registry.kill("demo")
            ended = nestd.registry.find("demo")
            assert ended.over
            nestd.told.clear()
            house.manner(Manner.DIES)
            with pytest.raises(Exception, match="did not start demo"):
                await nestd.launch()
            assert nestd.registry.find("demo") == ended  # until another one runs
            house.manner(Manner.GOOD)
            record = await nestd.launch()
            assert nestd.registry.find("demo") == record
            assert [what for what, _ in nestd.told if what != "changed"] == ["forgotten", "added"]
            await nestd.registry.kill("demo")

    run(scenario)


def test_a_name_is_taken_while_its_guest_starts_or_runs() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            with nestd.registry.reserve("demo"), pytest.raises(GuestExists, match="demo already"):
                await nestd.launch()
            await nestd.launch()
            with pytest.raises(GuestExists), nestd.registry.reserve("demo"):
                raise AssertionError
            await nestd.registry.kill("demo")
            await tasks.sleep(0)

    run(scenario)


def test_a_guest_that_is_not_there() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            for attempt in (nestd.registry.stop, nestd.registry.kill, nestd.registry.open_console):
                with pytest.raises(GuestNotFound, match=r"no guest 'a.x1bb'"):
                    await attempt("a\x1bb")
            registry = nestd.registry
            for question in (registry.get, registry.find, registry.console_log):
                with pytest.raises(GuestNotFound):
                    question("demo")

    run(scenario)


def test_the_console() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            record = await nestd.launch()
            with socket.socket(fileno=await nestd.registry.open_console("demo")) as console:
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
