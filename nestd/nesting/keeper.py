# SPDX-License-Identifier: LGPL-2.1-or-later
"""What was told is kept, or it is said that it is not: drift.

What is expected of the running kernel is what was last told for it: by a change of scope `runtime`, noted for
this boot, or else by the drop-in. A change of scope `boot` leaves what is expected of this boot as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from nestd import log
from nestd.host.machine import Host
from nestd.loop import Handle, running
from nestd.model import Check, Drift, Nesting, Policy, Scope, Status, Verdict
from nestd.nesting.changer import Changer
from nestd.nesting.drivers import LIVE
from nestd.nesting.observer import Observer
from nestd.nesting.pending import Pending
from nestd.nesting.store import THIS_BOOT, Store
from nestd.tasks import Task, create_task, wait

if TYPE_CHECKING:
    from nestd.nesting.plan import Wish
    from nestd.nesting.waiter import Waiter

_RECORD = "expected"
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
        self._store = Store(host.root, THIS_BOOT)
        self._begun = False
        self._noted = False
        self._note: Nesting | None = None
        self._expected: Nesting | None = None
        self._later: Task[None] | None = None
        self._timer: Handle | None = None
        self._waiter: Waiter | None = None
        self._tries: list[float] = []
        self._given_up = False
        self.drift: Drift | None = None

    def restore(self) -> None:
        """Read what an earlier daemon of this boot noted."""
        try:
            record = self._store.load(_RECORD)
            match record:
                case None:
                    return
                case {"nested": "on" | "off" | "" as nested}:
                    self._noted, self._note = True, Nesting(nested) if nested else None
                case _:
                    self._store.set_aside(_RECORD)
        except OSError as failure:
            log.error(f"What nestd was told for this boot cannot be read: {failure}")

    def begin(self) -> None:
        """From now on look, and tell: somebody can hear it."""
        self._begun = True
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
        self._expected = self._note if self._noted else _told(status.policy)
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
            self._remember(wish)
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
        live = status.driver_state in LIVE and status.nested is not Nesting.UNSUPPORTED
        # What only a reboot can settle was told so, and is no drift.
        if self._expected is None or not live or status.nested is self._expected or status.reboot_required:
            return None
        if status.nested_at_boot is status.nested:
            cause = f"the driver was loaded anew, and {status.boot_source} gives {status.nested}"
        else:
            cause = "the driver was loaded anew with other arguments"
        return Drift(self._expected, status.nested, cause)

    def _announce(self, drift: Drift) -> None:
        log.warning(
            f"Nesting is {drift.actual}, and nestd was told {drift.expected}: {drift.cause}.",
            message_id=log.DRIFT,
            expected=drift.expected,
            actual=drift.actual,
        )
        self._on_drift(drift)

    def _remember(self, wish: Wish) -> None:
        match wish.scope:
            case Scope.RUNTIME:
                self._noted, self._note = True, wish.nested
            case Scope.BOTH:
                self._noted, self._note = False, None
            case Scope.BOOT:
                self._noted, self._note = True, self._expected
        try:
            if self._noted:
                self._store.save(_RECORD, {"nested": str(self._note or "")})
            else:
                self._store.forget(_RECORD)
        except OSError as failure:
            log.error(f"What is expected of this boot is not kept when nestd is restarted: {failure}")

    def _put_back(self) -> None:
        """Have it put back after a while, unless that is on its way, given up, or not wanted."""
        if not self._enforce or self._given_up or self._timer or self._waiter or self._pending.waiting:
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
        from nestd.nesting.plan import Wish  # noqa: PLC0415 -- start-up does not need it
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


def _told(policy: Policy) -> Nesting | None:
    return None if policy is Policy.UNMANAGED else Nesting(policy.value)
