# SPDX-License-Identifier: LGPL-2.1-or-later
"""The guests of an earlier nestd, found by the next one: those that run, and what became of the others."""

from __future__ import annotations

import gc
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from nestd import tasks
from nestd.bus.connection import Connection
from nestd.guestmodel import GuestRecord, GuestState
from nestd.guests import places
from nestd.guests.restore import Restorer, Takes
from nestd.host.root import Root
from nestd.host.units import Units
from nestd.wire.library import Variant
from tests.guests.house import House, Nestd, house, records, run, until
from tests.support import loop


def test_the_next_daemon_finds_what_runs_and_what_has_ended() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as first:
            record = await first.launch(cpu="qemu64", vcpus=2, display="vnc")
            assert record.vnc == "/run/nestd/guests/demo/vnc"
            ended = await first.launch("ended")
            await first.launch("seen")
            await first.registry.kill("seen")
            seen = first.registry.find("seen")
        # Nobody notices the end of this one.
        os.kill(ended.pid, signal.SIGKILL)
        await until(lambda: house.runs() == ["demo"])
        async with house.nestd() as second:
            assert second.registry.records == (record,)
            assert second.registry.find("seen") == seen
            told = second.registry.find("ended")
            assert (told.state, told.result, told.exit_status, told.pid) == (
                *(GuestState.FAILED, "signal", signal.SIGKILL),
                0,
            )
            assert ended.started < told.ended <= time.time_ns() // 1000
            assert sorted(second.story()) == [
                ("added", "failed", "signal"),
                ("added", "failed", "signal"),
                ("added", "running", ""),
            ]
            assert records(house) == ["demo.json", "ended.json", "seen.json"]
            await second.registry.stop("demo")
            # The failed unit of the other one was reset.
            await second.launch("ended")
            await second.registry.kill("ended")

    run(scenario)


def test_an_end_that_nobody_saw_is_told_as_such() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as first:
            await first.launch()
        async with house.nestd() as other:
            await other.registry.stop("demo")  # a unit that ended well is gone at once
        path = house.top / "run/nestd/registry/demo.json"
        kept = json.loads(path.read_text())
        path.write_text(json.dumps({**kept, "state": "running", "pid": 4711, "ended": 0, "result": ""}))
        for told in (house.top / "journal").iterdir():
            told.unlink()  # a journal that is kept nowhere
        before = time.time_ns() // 1000
        async with house.nestd() as second:
            found = second.registry.find("demo")
            assert (found.state, found.result, found.exit_status) == (GuestState.EXITED, "", 0)
            assert found.ended >= before

    run(scenario)


def test_what_ended_long_ago_is_forgotten() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as first:
            await first.launch()
            await first.registry.stop("demo")
        path = house.top / "run/nestd/registry/demo.json"
        kept = json.loads(path.read_text())
        path.write_text(json.dumps({**kept, "ended": kept["ended"] - 300_000_000}))
        async with house.nestd() as second:
            assert second.told == [] and records(house) == []

    run(scenario)


GONE = None


@pytest.mark.parametrize(
    "text", ["", '{"name": "demo"}', "[" * 100_000, "another pid", "an older one's", "ended", GONE]
)
def test_a_guest_without_a_good_record_is_adopted(text: str | None) -> None:
    async def scenario(house: House) -> None:
        (house.top / "proc").mkdir()
        (house.top / "proc/cpuinfo").write_text("flags\t: fpu svm npt rep_good\n")
        async with house.nestd() as first:
            record = await first.launch(
                cpu="qemu64", cpu_features=("-avx",), memory=(64 << 20) - 1, vcpus=2, display="vnc"
            )
        assert record.missing_flags == ("npt",)
        path = house.top / "run/nestd/registry/demo.json"
        known = json.loads(path.read_text())
        changed = {
            "another pid": {**known, "pid": 1, "vcpus": 9},
            "an older one's": {name: known[name] for name in known if name not in ("lab", "last_words")},
            "ended": {**known, "pid": 0, "state": "exited", "ended": time.time_ns() // 1000},
        }
        if text is GONE:
            path.unlink()
        else:
            path.write_text(json.dumps(changed[text]) if text in changed else text)
        async with house.nestd() as second:
            assert second.registry.records == (record,)
            assert [what for what, _ in second.told] == ["added"]
            assert records(house) == ["demo.json"]
            await second.registry.kill("demo")

    run(scenario)


def test_a_guest_whose_monitor_is_gone_is_adopted_as_far_as_it_is_known(
    capfd: pytest.CaptureFixture[str],
) -> None:
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
    assert "shown without nesting, whether it can nest or not" in capfd.readouterr().err


def test_a_launch_that_a_crash_cut_short_is_cleared_away() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as first:
            await first.start_only("demo")  # it does not listen yet
        async with house.nestd() as second:
            assert second.registry.records == ()
            await until(lambda: house.runs() == [])

    run(scenario)


def test_a_guest_of_nestds_own_ends_with_who_waited_for_it() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as first:
            await first.start_only("_verify")
            await until((house.top / f"{places.qmp('_verify')[1:]}").exists)
        async with house.nestd() as second:
            await until(lambda: house.runs() == [])
            assert second.told == []

    run(scenario)


def test_a_guest_that_does_not_answer_keeps_no_other_waiting() -> None:
    """It has no record, so its QEMU is asked; it is found when that was in vain."""

    async def scenario(house: House) -> None:
        async with house.nestd() as first:
            stuck = await first.launch("a-stuck")
            record = await first.launch()
        os.kill(stuck.pid, signal.SIGSTOP)
        (house.top / "run/nestd/registry/a-stuck.json").unlink()
        async with house.nestd() as second:
            assert record in second.registry.records
            await until(lambda: len(second.registry.records) == 2)
            found = second.registry.get("a-stuck")
            assert (found.pid, found.owner, found.state) == (stuck.pid, stuck.owner, GuestState.RUNNING)
            await second.registry.kill("a-stuck")
            await second.registry.kill("demo")

    run(scenario)


def test_systemd_that_refuses_to_tell_of_a_guest_leaves_it_alone() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as first:
            await first.launch()
        async with house.nestd() as other:
            record = other.registry.get("demo")
            (house.top / "refuse-ResetFailedUnit").touch()
            os.kill(record.pid, signal.SIGKILL)
            await until(lambda: other.registry.records == ())
        async with house.nestd() as second:
            assert second.registry.records == ()
            (house.top / "refuse-ResetFailedUnit").unlink()
        async with house.nestd() as third:
            assert third.registry.find("demo").result == "signal"
            await third.launch()
            await third.registry.kill("demo")

    run(scenario)


def test_a_record_that_nobody_can_read_goes_with_its_guest(capfd: pytest.CaptureFixture[str]) -> None:
    async def scenario(house: House) -> None:
        kept = house.top / "run/nestd/registry/demo.json"
        kept.parent.mkdir(mode=0o700, parents=True)
        kept.write_text("{")
        for _ in range(2):
            async with house.nestd() as nestd:
                assert nestd.told == [] and records(house) == []

    run(scenario)
    assert capfd.readouterr().err.count("The record of the guest demo is of no use") == 1


class _Stumbles(Nestd):
    def added(self, record: GuestRecord) -> None:
        raise ZeroDivisionError(record.name)


def test_what_nobody_foresaw_while_a_guest_is_looked_for_is_told_while_nestd_lives() -> None:
    told: list[str] = []

    async def scenario(made: House) -> None:
        async with made.nestd() as first:
            await first.launch()
        connection = await Connection.connect(made.address)
        second = _Stumbles(made.top, connection)
        try:
            await second.registry.restore()
            await second.registry.found(["demo"])
            gc.collect()
            assert told == ["ZeroDivisionError('demo')"]
        finally:
            await second.registry.close()
            await connection.close()

    with house() as made:
        tasks.run(scenario(made), lambda _, error: told.append(repr(error)))


class _SlowSystemd:
    """The bus to a systemd that takes its time, and counts how many ask it at once."""

    def __init__(self) -> None:
        self.asking = self.most = self.answered = 0

    async def subscribe(self, _: str, __: object) -> Callable[[], Awaitable[None]]:
        async def unsubscribe() -> None:
            """Nothing is told."""

        return unsubscribe

    async def call(self, *asked: object, **_: object) -> list[Any]:
        if asked[3] != "GetAll":
            return []
        self.asking += 1
        self.most = max(self.most, self.asking)
        await tasks.sleep(0.01)
        self.asking -= 1
        self.answered += 1
        return [{"ActiveState": Variant("s", "inactive")}]


def test_many_are_found_without_asking_systemd_of_all_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        bus = _SlowSystemd()
        restorer = Restorer(Root(str(tmp_path)), Units(bus), cast(Takes, None))
        states = {f"g{number}": ("active", "failed")[number % 2] for number in range(20)}
        await tasks.wait([tasks.create_task(restorer.restore(*each)) for each in states.items()])
        assert (bus.most, bus.answered) == (1, 2 * len(states))

    loop.run(main())
