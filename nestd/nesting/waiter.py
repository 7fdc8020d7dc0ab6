# SPDX-License-Identifier: LGPL-2.1-or-later
"""A wish that is carried out as soon as nobody uses the driver."""

from __future__ import annotations

from collections.abc import Callable

from nestd import errors
from nestd.host.idle import IdleWatch
from nestd.host.machine import Host
from nestd.nesting.changer import Changer
from nestd.nesting.observer import Observer
from nestd.nesting.steps import Wish
from nestd.tasks import Task, create_task, sleep, wait

Ended = Callable[[Exception | None], None]

# Seconds after which the driver is looked at again that somebody took between the look and the change.
_TAKEN = 0.05


class Waiter:
    """Waits for one wish's time, by events alone, and carries it out; then `ended` gets its failure, or None.

    `stop` has it wait no more; a change that has begun goes on to its end all the same, and `ended` is not
    called.
    """

    def __init__(self, host: Host, observer: Observer, changer: Changer, wish: Wish, ended: Ended) -> None:
        self._host = host
        self._observer = observer
        self._changer = changer
        self._watch = IdleWatch(host.root, self._used)
        self.wish = wish
        self.due = False  # its change is under way
        self._task: Task[None] = create_task(self._run(ended))

    def nudge(self) -> None:
        """A module came or went: look."""
        self._watch.nudge()

    def stop(self) -> None:
        """Wait no more."""
        self._task.cancel()

    async def stopped(self) -> None:
        """The same, and return when nothing of it is left."""
        self.stop()
        await wait({self._task})

    def _used(self) -> bool:
        driver = self._observer.status.driver
        return bool(driver) and self._host.kmod.refcnt(driver) > 0

    async def _run(self, ended: Ended) -> None:
        failure: Exception | None = None
        try:
            with self._watch:
                await self._carry_out()
        except (errors.NestdError, OSError) as error:
            failure = error
        ended(failure)

    async def _carry_out(self) -> None:
        while True:
            await self._watch.idle()
            try:
                self.due = True
                await self._changer.change(self.wish, False)
                return
            except errors.InUse:
                await sleep(_TAKEN)
            except errors.Busy:
                await self._changer.settle()
            finally:
                self.due = False
