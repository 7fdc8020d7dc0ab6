# SPDX-License-Identifier: LGPL-2.1-or-later
"""Launches that systemd or QEMU is late for, or that somebody stops: it is said, and nothing is left."""

from __future__ import annotations

import pytest

from nestd.errors import LaunchFailed
from tests.guests.house import House, run, until
from tests.support.fakeqemu import Manner


def _units_that_ran(house: House) -> list[str]:
    return [path.name for path in (house.top / "journal").iterdir() if not path.suffix]


def test_a_systemd_that_is_late_is_said_to_be_and_leaves_nothing() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            await nestd.launch("other")  # the daemon is known to systemd, and has its signals
            (house.top / "hangs").touch()
            with pytest.raises(LaunchFailed, match=r"did not get to it in time.*`systemctl list-jobs`"):
                await nestd.launch()
            assert house.runs() == ["other"]
            (house.top / "hangs").unlink()
            # It comes to the start now, and to the stop behind it.
            await until(lambda: len(_units_that_ran(house)) == 2)
            await until(lambda: house.runs() == ["other"])
            await nestd.launch()
            for name in ("demo", "other"):
                await nestd.registry.kill(name)

    run(scenario)


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ("canceled", "stopped before QEMU ran: by somebody, or as the machine shuts down"),
        ("dependency", r"`systemctl status machine\.slice` says why"),
    ],
)
def test_a_job_that_came_to_nothing_is_explained(result: str, words: str) -> None:
    async def scenario(house: House) -> None:
        (house.top / "job-result").write_text(result)
        async with house.nestd() as nestd:
            with pytest.raises(LaunchFailed, match=rf"did not start \({result}\): .*{words}"):
                await nestd.launch()
            (house.top / "job-result").unlink()
            await nestd.launch()
            await nestd.registry.kill("demo")

    run(scenario)


def test_a_qemu_that_runs_and_cannot_be_reached_is_said_to_run() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            with pytest.raises(
                LaunchFailed, match=r"ran, but .* could not be reached, .*: Protocol wrong type"
            ):
                await nestd.launch()
            assert house.runs() == []

    run(scenario, Manner.LISTENS_OTHERWISE)


def test_a_qemu_that_does_not_greet_is_told_with_what_to_do() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd(answer_limit=0.5) as nestd:
            with pytest.raises(
                LaunchFailed, match=r"not answered for 0\.5 s.*a disk on a file system that hangs"
            ):
                await nestd.launch()
            assert house.runs() == []

    run(scenario, Manner.SAYS_NOTHING)
