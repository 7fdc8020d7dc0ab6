# SPDX-License-Identifier: LGPL-2.1-or-later
"""What was told is kept, or it is said that it is not: drift."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from nestd import log
from nestd.host.machine import Host
from nestd.loop import Handle, running
from nestd.model import Check, Drift, Nesting, Scope, Status, Verdict
from nestd.nesting.arrival import Arrival
from nestd.nesting.changer import Changer
from nestd.nesting.drivers import LIVE
from nestd.nesting.expected import Expected
from nestd.nesting.observer import Observer
from nestd.nesting.pending import Pending
from nestd.tasks import Task, create_task, wait

if TYPE_CHECKING:
    from nestd.nesting.steps import Wish
    from nestd.nesting.waiter import Waiter

# Putting it back: seconds before the first try, how many tries, and seconds within which they count.
_DELAY, _TRIES, _PERIOD = 1.0, 5, 600.0


class Keeper:
    """Compares each reading with what is expected. `on_drift` gets each drift once.

    With `enforce` it is put back as soon as nobody uses the driver, a few times, and then no more until
    somebody tells nestd anew; `delay` seconds before the first time, twice as long before each that follows
    soon. `pending` comes first: while a change waits, nothing is put back.
    """

    def __init__(
        self,
        host: Host,
        observer: Observer,
        changer: Changer,
        pending: Pending,
        on_drift: Callable[[Drift], None],
        *,
        enforce: bool,
        delay: float = _DELAY,
    ) -> None:
        self._host = host
        self._observer = observer
        self._changer = changer
        self._pending = pending
        self._on_drift = on_drift
        self._enforce = enforce
        self._delay = delay
        self._expected = Expected(host.root)
        self._arrival = Arrival(host.root)
        self._begun = False
        self._later: Task[None] | None = None
        self._timer: Handle | None = None
        self._waiter: Waiter | None = None
        self._tries: list[float] = []
        self._given_up = False
        self.drift: Drift | None = None

    def restore(self) -> None:
        """Read what an earlier daemon of this boot noted."""
        self._expected.restore()
        self._arrival.restore()

    def begin(self) -> None:
        """From now on look, and tell: somebody can hear it."""
        self._begun = True
        self.look()

    @property
    def puts_back(self) -> bool:
        """Whether it is being put back, or about to be, as soon as nobody uses the driver."""
        return self._timer is not None or self._waiter is not None

    def enforce(self, enforce: bool) -> None:
        """From now on put it back, or not. If that is something new, what was given up is begun anew."""
        if enforce is self._enforce:
            return
        self._enforce, self._tries, self._given_up = enforce, [], False
        if not enforce:
            self._stop()
        self.look()

    def look(self) -> None:
        """Compare the last reading with what is expected; after each reading that brought something new."""
        if not self._begun:
            return
        if self._changer.busy:
            # In the middle of a change there is nothing to compare; its end may be another than was wished.
            if self._later is None:
                self._later = create_task(self._look_later())
            return
        status = self._observer.status
        expected = self._expected.look(status.policy)
        if _live(status):
            self._arrival.judge(self._observer.reading, expected)
        before, self.drift = self.drift, self._compared(status)
        if self.drift is None or self._pending.waiting:
            self._stop()
        if self.drift is None:
            return
        if before is None or before.actual is not self.drift.actual:
            self._announce(self.drift)
        self._put_back()

    def told(self, wish: Wish) -> None:
        """A change has succeeded: from now on this is expected."""
        if self._waiter is None or self._waiter.wish != wish:
            self._tries, self._given_up = [], False
            self._stop()
            self._expected.told(wish)
            self._arrival.over()
        self.look()

    def nudge(self) -> None:
        """A module came or went: it may be time."""
        if self._waiter is not None:
            self._waiter.nudge()

    def checks(self) -> tuple[Check, ...]:
        """For Diagnose: the check `drift`."""
        drift = self.drift
        if drift is None:
            return (Check.passed("drift", "The running kernel has what nestd was last told."),)
        text = f"Nesting is {drift.actual}, and nestd was told {drift.expected}: {drift.cause}."
        verb = "enable" if drift.expected is Nesting.ON else "disable"
        if self._given_up:
            text += f" To put it back was tried {_TRIES} times, and it did not last: nestd does not fight."
            remedy = f"Find out who reloads the driver, then say `nestctl {verb}` again."
            return (Check("drift", Verdict.FAIL, text, remedy),)
        if self._observer.status.reboot_required:
            remedy = "Reboot. If it comes up so again, `nestctl diagnose` tells what decides."
            return (Check("drift", Verdict.WARN, text, remedy),)
        if self._enforce:
            remedy = "nestd puts it back as soon as nobody uses the driver: nestctl holders."
            return (Check("drift", Verdict.WARN, text, remedy),)
        remedy = f"Say again what is wanted: `nestctl {verb}`, or the other. Enforce= in nestd.conf keeps it."
        return (Check("drift", Verdict.WARN, text, remedy),)

    async def close(self) -> None:
        """Put nothing back any more."""
        waiter = self._waiter
        self._stop()
        left = {self._later} if self._later is not None else set()
        for each in left:
            each.cancel()
        await wait(left)
        if waiter is not None:
            await waiter.stopped()

    async def _look_later(self) -> None:
        while self._changer.busy:
            await self._changer.settle()
        self._later = None
        self.look()

    def _compared(self, status: Status) -> Drift | None:
        expected, came = self._expected.nested, self._arrival.drift
        if came is not None:
            if _live(status) and (came.expected, came.actual) == (expected, status.nested):
                return came
            self._arrival.over()
        # What only a reboot can settle was told so, and is no drift.
        as_told = status.nested is expected or status.reboot_required
        if expected is None or as_told or not _live(status):
            return None
        if status.nested_at_boot is status.nested:
            cause = f"the driver was loaded anew, and {status.boot_source} gives {status.nested}"
        else:
            cause = "the driver was loaded anew with other arguments"
        return Drift(expected, status.nested, cause)

    def _announce(self, drift: Drift) -> None:
        log.warning(
            f"Nesting is {drift.actual}, and nestd was told {drift.expected}: {drift.cause}.",
            message_id=log.DRIFT,
            expected=drift.expected,
            actual=drift.actual,
        )
        self._on_drift(drift)

    def _put_back(self) -> None:
        """Have it put back after a while, unless that is on its way, given up, or not wanted."""
        if not self._enforce or self._given_up or self._timer or self._waiter or self._pending.waiting:
            return
        if self._observer.status.reboot_required:
            return
        self._tries = [when for when in self._tries if when > monotonic() - _PERIOD]
        if len(self._tries) >= _TRIES:
            self._given_up = True
            log.error(
                f"To put nesting back was tried {_TRIES} times within {_PERIOD / 60:g} minutes, and it did "
                "not last. nestd gives up until it is told anew: find out who reloads the driver.",
                message_id=log.DRIFT_GIVEN_UP,
            )
            return
        self._timer = running().call_later(self._delay * 2 ** len(self._tries), self._try)

    def _try(self) -> None:
        from nestd.nesting.steps import Wish  # noqa: PLC0415 -- start-up does not need it
        from nestd.nesting.waiter import Waiter  # noqa: PLC0415

        self._timer = None
        if self.drift is None or self._pending.waiting:
            return
        wish = Wish(self.drift.expected, Scope.RUNTIME)
        self._waiter = Waiter(self._host, self._observer, self._changer, wish, self._tried)

    def _tried(self, failure: Exception | None) -> None:
        self._waiter = None
        self._tries.append(monotonic())
        if failure is None:
            log.info("Nesting was put back to what nestd was told.", message_id=log.DRIFT_PUT_BACK)
        else:
            log.error(f"Nesting could not be put back: {failure}", message_id=log.DRIFT_PUT_BACK)
        self.look()

    def _stop(self) -> None:
        """There is nothing to put back; a change that has begun goes on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiter is not None and not self._waiter.due:
            self._waiter.stop()
            self._waiter = None


def _live(status: Status) -> bool:
    return status.driver_state in LIVE and status.nested is not Nesting.UNSUPPORTED
