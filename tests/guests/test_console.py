# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest's console is for one at a time; whoever comes second is told, and waits nowhere."""

from __future__ import annotations

import os
import signal

import pytest

from nestd import tasks
from nestd.errors import Busy, Failed
from tests.guests.house import House, Nestd, run

TAKEN = r"^The console of demo is in use by another: leave it there first \(Ctrl-\]\)\.$"


async def _refused(nestd: Nestd) -> None:
    with pytest.raises(Busy, match=TAKEN):
        await nestd.registry.open_console("demo")


def test_the_second_is_told_and_the_next_after_the_first_gets_it() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            await nestd.launch()
            await nestd.launch("other")
            for _ in range(3):
                console = await nestd.registry.open_console("demo")
                await _refused(nestd)
                await _refused(nestd)
                os.close(await nestd.registry.open_console("other"))
                os.close(console)
            for name in ("demo", "other"):
                await nestd.registry.kill(name)

    run(scenario)


def test_of_two_at_once_one_gets_it() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            await nestd.launch()
            both = [tasks.create_task(nestd.registry.open_console("demo")) for _ in range(2)]
            await tasks.wait(both)
            refused = [type(each.exception()) for each in both if each.exception()]
            assert refused == [Busy]
            (console,) = (each.result() for each in both if not each.exception())
            await _refused(nestd)
            os.close(console)
            os.close(await nestd.registry.open_console("demo"))
            await nestd.registry.kill("demo")

    run(scenario)


def test_who_leaves_while_it_is_asked_for_has_not_taken_it() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            await nestd.launch()
            leaving = tasks.create_task(nestd.registry.open_console("demo"))
            await tasks.sleep(0)
            leaving.cancel()
            await tasks.wait([leaving])
            os.close(await nestd.registry.open_console("demo"))
            await nestd.registry.kill("demo")

    run(scenario)


def test_a_qemu_that_does_not_say_gives_it_as_far_as_its_queue_goes() -> None:
    """And keeps a place for the power button in the queue of its monitor."""

    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            pid = (await nestd.launch()).pid
            os.kill(pid, signal.SIGSTOP)
            consoles = []
            with pytest.raises(Busy, match=TAKEN):
                while True:
                    consoles.append(await nestd.registry.open_console("demo"))
            assert 1 <= len(consoles) <= 3
            stop = tasks.create_task(nestd.registry.stop("demo", 3600))
            await tasks.sleep(0.1)
            assert nestd.registry.get("demo").stopping == "power-button"
            os.kill(pid, signal.SIGCONT)
            await stop
            assert nestd.registry.find("demo").result == "success"
            for console in consoles:
                os.close(console)

    run(scenario)


def test_a_console_whose_socket_is_gone() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            await nestd.launch()
            (house.top / "run/nestd/guests/demo/console").unlink()
            with pytest.raises(Failed, match="cannot be opened: No such file"):
                await nestd.registry.open_console("demo")
            await nestd.registry.kill("demo")

    run(scenario)
