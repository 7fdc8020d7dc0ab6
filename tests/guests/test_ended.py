# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is kept of guests that have ended: how long, how many, and for whom."""

from __future__ import annotations

import time
from pathlib import Path
from time import monotonic

from nestd.guestmodel import GuestRecord, GuestState
from nestd.guests import records
from nestd.guests.ended import KEPT, MOST, SECONDS, Ended
from nestd.host.root import Root
from nestd.loop import running
from tests.guests.house import until
from tests.support import loop


def _record(name: str, ago: float = 0.0, owner: int = 5) -> GuestRecord:
    return GuestRecord(
        *(
            name,
            GuestState.EXITED,
            owner,
            f"nestd-guest-{name}.service",
            0,
            "host",
            True,
            (),
            1 << 29,
            1,
            1,
            "c",
        ),
        ended=int((time.time() - ago) * 1e6),
        result="success",
    )


class _Kept:
    """Ended, and whom it forgot."""

    def __init__(self, top: Path) -> None:
        (top / "run").mkdir()
        self.root = Root(str(top))
        self.forgotten: list[str] = []
        self.ended = Ended(self.root, lambda record: self.forgotten.append(record.name))


def test_a_guest_is_kept_for_its_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        kept = _Kept(tmp_path)
        lately, long_ago = _record("lately", SECONDS - 0.2), _record("long-ago", SECONDS)
        assert kept.ended.keep(lately) and not kept.ended.keep(long_ago)
        assert kept.ended.get("lately") == lately and kept.ended.get("long-ago") is None
        assert records.load(kept.root, "lately") == lately
        await until(lambda: kept.forgotten == ["lately"])
        assert kept.ended.get("lately") is None and records.names(kept.root) == ()

    loop.run(scenario())


def test_so_many_and_the_oldest_goes_first(tmp_path: Path) -> None:
    async def scenario() -> None:
        kept = _Kept(tmp_path)
        # In no order: an earlier nestd's are found by their names.
        for number in range(KEPT + 3):
            assert kept.ended.keep(_record(f"g{number}", ago=(number * 7) % (KEPT + 3)))
        assert len(records.names(kept.root)) == KEPT
        assert len(kept.forgotten) == 3
        kept.ended.close()
        assert len(records.names(kept.root)) == KEPT  # for the next nestd

    loop.run(scenario())


def test_a_users_many_guests_push_out_none_of_others(tmp_path: Path) -> None:
    async def scenario() -> None:
        kept = _Kept(tmp_path)
        assert kept.ended.keep(_record("mine", ago=100, owner=6))
        for number in range(KEPT + 3):
            assert kept.ended.keep(_record(f"g{number}", ago=50 - number / 10))
        assert kept.forgotten == ["g0", "g1", "g2"]
        assert kept.ended.get("mine") and len(records.names(kept.root)) == KEPT + 1
        kept.ended.close()

    loop.run(scenario())


def test_of_all_there_are_no_more_than_a_few_users_have(tmp_path: Path) -> None:
    """Who has the most gives way, and not who has but one."""

    async def scenario() -> None:
        kept = _Kept(tmp_path)
        assert kept.ended.keep(_record("mine", ago=200, owner=1))
        for number in range(MOST - 1):
            owner = 2 + number % (MOST // KEPT)
            assert kept.ended.keep(_record(f"g{number}", ago=100 - number / 10, owner=owner))
        assert kept.forgotten == []
        assert kept.ended.keep(_record("another", owner=99))
        assert len(records.names(kept.root)) == MOST
        assert kept.ended.get("mine") and kept.ended.get("another") and kept.forgotten == ["g0"]
        kept.ended.close()

    loop.run(scenario())


def test_a_clock_that_was_put_back_keeps_nobody_for_longer(tmp_path: Path) -> None:
    async def scenario() -> None:
        kept = _Kept(tmp_path)
        assert kept.ended.keep(_record("demo", ago=-1e9))
        [timer] = running()._timers
        assert timer.when <= monotonic() + SECONDS
        kept.ended.close()
        assert running()._timers == []

    loop.run(scenario())


def test_a_new_guest_has_the_file(tmp_path: Path) -> None:
    async def scenario() -> None:
        kept = _Kept(tmp_path)
        old = _record("demo")
        kept.ended.keep(old)
        new = old._replace(state=GuestState.RUNNING, pid=7)
        records.save(kept.root, new)
        kept.ended.displace("demo")
        assert kept.forgotten == ["demo"]
        assert not kept.ended.learn(old, old._replace(last_words=("words",)))
        assert records.load(kept.root, "demo") == new
        kept.ended.displace("demo")
        assert kept.forgotten == ["demo"]

    loop.run(scenario())


def test_last_words_come_later(tmp_path: Path) -> None:
    async def scenario() -> None:
        kept = _Kept(tmp_path)
        record = _record("demo")
        kept.ended.keep(record)
        told = record._replace(last_words=("qemu: no", "bye"))
        assert kept.ended.learn(record, told)
        assert kept.ended.get("demo") == told == records.load(kept.root, "demo")
        assert kept.forgotten == []
        kept.ended.close()
        assert running()._timers == []

    loop.run(scenario())


def test_an_end_that_turns_out_to_be_long_ago_is_forgotten(tmp_path: Path) -> None:
    async def scenario() -> None:
        kept = _Kept(tmp_path)
        record = _record("demo")
        kept.ended.keep(record)
        assert not kept.ended.learn(record, _record("demo", SECONDS))
        assert kept.ended.get("demo") is None and records.names(kept.root) == ()
        assert kept.forgotten == ["demo"] and running()._timers == []

    loop.run(scenario())


def test_a_disk_that_takes_nothing_is_no_reason_to_forget_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        kept = _Kept(tmp_path)
        (tmp_path / "run/nestd").write_text("no folder")
        assert kept.ended.keep(_record("demo"))
        assert kept.ended.get("demo")
        kept.ended.forget("demo")
        assert kept.forgotten == ["demo"]

    loop.run(scenario())
