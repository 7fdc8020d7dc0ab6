# SPDX-License-Identifier: LGPL-2.1-or-later
"""Guests that end while no nestd is there, and whose units systemd has forgotten: the journal tells."""

from __future__ import annotations

import json
import os
import signal
import time

from nestd.guestmodel import GuestRecord, GuestState
from nestd.guests import places
from tests.guests.house import House, Nestd, run, until
from tests.support.fakeqemu import Manner


def _says(house: House, record: GuestRecord, words: str) -> None:
    (house.top / "journal" / record.invocation).write_text(words)


async def _powered_off(house: House, record: GuestRecord) -> None:
    """Have a guest end well, with nobody but systemd to see it."""
    async with house.nestd() as unseen:
        await unseen.registry.stop(record.name)
    # As it was before that end.
    kept = {**record._asdict(), "missing_flags": list(record.missing_flags)}
    (house.top / places.record(record.name)[1:]).write_text(json.dumps(kept))


def _settled(nestd: Nestd) -> bool:
    return nestd.registry.find("demo").result != ""


def test_a_good_end_is_told_with_its_time_and_the_last_words() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as first:
            record = await first.launch()
        await _powered_off(house, record)
        _says(house, record, "qemu: terminating\n")
        over = time.time_ns() // 1000
        async with house.nestd() as second:
            await until(lambda: _settled(second))
            found = second.registry.find("demo")
            assert (found.state, found.result, found.exit_status) == (GuestState.EXITED, "success", 0)
            assert found.last_words == ("qemu: terminating",)
            assert record.started < found.ended < over
            assert second.story() == [("added", "exited", ""), ("changed", "exited", "success")]
        async with house.nestd() as third:
            assert third.told == [("added", found)]

    run(scenario)


def test_a_bad_end_that_somebody_had_systemd_forget() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as first:
            record = await first.launch()
        os.kill(record.pid, signal.SIGKILL)
        await until(lambda: house.runs() == [])
        kept = house.top / places.record("demo")[1:]
        known = kept.read_text()
        async with house.nestd():
            pass  # it resets the unit
        kept.write_text(known)
        async with house.nestd() as second:
            await until(lambda: _settled(second))
            found = second.registry.find("demo")
            assert (found.state, found.result, found.exit_status) == (
                *(GuestState.FAILED, "signal"),
                signal.SIGKILL,
            )

    run(scenario)


def test_the_words_are_told_where_the_way_it_ended_is_not() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as first:
            record = await first.launch()
        await _powered_off(house, record)
        _says(house, record, "qemu: terminating\n")
        (house.top / "journal" / f"{record.invocation}.systemd").write_text("")
        async with house.nestd() as second:
            await until(lambda: second.registry.find("demo").last_words != ())
            found = second.registry.find("demo")
            assert (found.result, found.last_words) == ("", ("qemu: terminating",))

    run(scenario)


def test_an_end_of_long_ago_is_forgotten_once_it_is_known() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as first:
            record = await first.launch()
        await _powered_off(house, record)
        told = house.top / "journal" / f"{record.invocation}.systemd"
        told.write_text(json.dumps({**json.loads(told.read_text()), "__REALTIME_TIMESTAMP": "1"}))
        async with house.nestd() as second:
            await until(lambda: [what for what, _ in second.told] == ["added", "forgotten"])

    run(scenario)


def test_a_record_of_before_has_no_invocation_until_the_end() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as first:
            record = await first.launch()
            assert len(record.invocation) == 32
        kept = house.top / places.record("demo")[1:]
        known = json.loads(kept.read_text())
        del known["invocation"]
        kept.write_text(json.dumps(known))
        async with house.nestd() as second:
            assert second.registry.records == (record._replace(invocation=""),)
            await second.registry.kill("demo")
            assert second.registry.find("demo").invocation == record.invocation

    run(scenario, Manner.IGNORES_THE_BUTTON)
