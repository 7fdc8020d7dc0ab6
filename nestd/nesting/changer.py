# SPDX-License-Identifier: LGPL-2.1-or-later
"""One change at a time, and each to its end, whatever becomes of the one who asked."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nestd import errors, log
from nestd.host.machine import Host
from nestd.model import Status
from nestd.nesting.observer import Observer

if TYPE_CHECKING:
    from nestd.nesting import plan


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a change came to: the steps that were done (or would be), and the status after them."""

    changed: bool
    steps: tuple[str, ...]
    status: Status


class Changer:
    """Carries out wishes, one at a time."""

    def __init__(self, host: Host, observer: Observer) -> None:
        self._host = host
        self._observer = observer
        self._running: asyncio.Task[Outcome] | None = None
        self._wish: plan.Wish | None = None

    async def change(self, wish: plan.Wish, dry_run: bool) -> Outcome:
        """Make it so. The refusals of plan.make, the failures of change.carry_out, and Busy.

        If the caller is cancelled, the change goes on to its end all the same.
        """
        if self._running is not None and not dry_run:
            raise errors.Busy(
                f"Another change is under way (nesting {self._wish.nested if self._wish else ''}). "
                "Wait for its end, then try again."
            )
        todo = self._plan(wish)
        steps = tuple(str(step) for step in todo.steps)
        if dry_run or not steps:
            return Outcome(False, steps, self._observer.status)
        self._wish = wish
        self._running = asyncio.get_running_loop().create_task(self._run(todo, steps))
        # Its caller may be gone by the time it fails; the failure is in the journal either way.
        self._running.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return await asyncio.shield(self._running)

    async def settle(self) -> None:
        """Wait until no change is under way. Its failure is its caller's, not ours."""
        if self._running is not None:
            await asyncio.wait({self._running})

    def _plan(self, wish: plan.Wish) -> plan.Plan:
        from nestd.host.holders import holders  # noqa: PLC0415 -- start-up needs none of these
        from nestd.nesting import plan  # noqa: PLC0415

        # While a change runs (a dry-run may come then), the last reading has to do.
        reading = self._observer.refresh() if self._running is None else self._observer.reading
        held_by = holders(self._host.root) if reading.status.users else ()
        return plan.make(reading, wish, held_by)

    async def _run(self, todo: plan.Plan, steps: tuple[str, ...]) -> Outcome:
        from nestd.nesting import change  # noqa: PLC0415 -- start-up does not need it

        try:
            with self._observer.held():
                await change.carry_out(self._host, todo, self._observer.refresh)
        except errors.BusError as failure:
            failed = isinstance(failure, errors.RollbackFailed)
            log.error(str(failure), message_id=log.ROLLBACK_FAILED if failed else log.CHANGE_FAILED)
            raise
        finally:
            self._running = None
            self._wish = None
        status = self._observer.status
        done = "; ".join(steps)
        log.info(
            f"Nesting is {status.nested}, at the next boot {status.nested_at_boot}: {done}.",
            message_id=log.CHANGED,
        )
        return Outcome(True, steps, status)
