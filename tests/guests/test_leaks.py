# SPDX-License-Identifier: LGPL-2.1-or-later
"""Guests that come and go leave nothing in the daemon: no task, timer, rule, descriptor, nor object."""

from __future__ import annotations

import gc
from collections import Counter
from typing import NamedTuple

from nestd import tasks
from nestd.loop import running
from tests.guests.house import House, Nestd, run, until


class _Left(NamedTuple):
    tasks: int
    timers: int
    descriptors: int
    rules: int
    objects: dict[str, int]


def _left(nestd: Nestd) -> _Left:
    """What there is now."""
    gc.collect()
    counted = Counter(
        type(each).__qualname__ for each in gc.get_objects() if type(each).__module__.startswith("nestd.")
    )
    loop = running()
    rules = nestd.connection._subscriptions._rules
    # The one that looks is one of the tasks, and waits by a timer now and then.
    return _Left(len(loop.tasks), len(loop._timers), len(loop._watches), len(rules), dict(counted))


async def _settled(nestd: Nestd) -> _Left:
    """The same, when nothing is under way: journalctl may still be asked for last words."""
    await until(lambda: nestd.registry._words is None or nestd.registry._words._task is None)
    await until(lambda: not nestd.registry._tasks)
    await tasks.sleep(0.05)
    return _left(nestd)


def test_nothing_is_left() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            found = []
            others = _left(nestd).objects.get("GuestRecord", 0)  # of other tests' modules
            for _ in range(3):
                for number in range(4):
                    name = f"g{number}"
                    await nestd.launch(name)
                    await (nestd.registry.stop if number % 2 else nestd.registry.kill)(name)
                nestd.told.clear()
                found.append(await _settled(nestd))
            assert found[1] == found[2]
            # Those that have ended lately: a record and a timer each; and the test's own limit of time.
            assert (found[2].objects["GuestRecord"], found[2].timers) == (others + 4, 4 + 1)
            assert found[2].rules == 0

    run(scenario)
