# SPDX-License-Identifier: LGPL-2.1-or-later
"""The change that waits for the driver to become idle: one at most, kept on the disk until it is settled.

It outlives the daemon and a reboot. Who may ask for it is decided when it is asked for; who did is kept with
it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from nestd import errors, log
from nestd.host.machine import Host
from nestd.model import Check, Nesting, Scope, Verdict, Waiting
from nestd.nesting.changer import Changer, Outcome
from nestd.nesting.observer import Observer
from nestd.nesting.store import LASTING, Store

if TYPE_CHECKING:
    from nestd.nesting.steps import Wish
    from nestd.nesting.waiter import Waiter

_RECORD = "pending"


class Pending:
    """The wish that waits. `on_change` is called when another, or none, does."""

    def __init__(
        self, host: Host, observer: Observer, changer: Changer, on_change: Callable[[], None]
    ) -> None:
        self._host = host
        self._observer = observer
        self._changer = changer
        self._on_change = on_change
        self._store = Store(host.root, LASTING)
        self._record: Waiting | None = None
        self._waiter: Waiter | None = None

    @property
    def waiting(self) -> Waiting | None:
        """What waits; None: nothing does."""
        return self._record if self._record is not None and not self._record.failure else None

    @property
    def wish(self) -> Wish | None:
        """The wish that waits; None: none does."""
        from nestd.nesting.steps import Wish  # noqa: PLC0415 -- start-up does not need it

        asked = self.waiting
        return Wish(asked.nested, asked.scope, asked.replace, asked.loader) if asked else None

    def restore(self) -> None:
        """Read what an earlier daemon left. It is not waited for before `take_up`."""
        try:
            record = self._store.load(_RECORD)
            if record is None:
                return
            self._record = understood(record)
            if self._record is None:
                self._store.set_aside(_RECORD)
        except OSError as failure:
            log.error(f"Whether a change waits for the driver to become idle cannot be told: {failure}")

    def take_up(self) -> None:
        """Go on waiting for what `restore` found."""
        if self.waiting and self._waiter is None:
            log.info(f"{_sentence(self.waiting)} It has waited since before nestd started.")
            self._begin()

    async def change(self, wish: Wish, dry_run: bool, uid: int) -> Outcome:
        """As Changer.change, but where that raises InUse the wish waits, in place of one that waited before.

        `uid` asks for it. Also raises Failed: it cannot be kept on the disk, so it does not wait.
        """
        try:
            return await self._changer.change(wish, dry_run)
        except errors.InUse:
            todo = await self._changer.steps_of(wish, idle=True)
            if not dry_run and wish.nested is not None:
                self._put(Waiting(wish.nested, wish.scope, uid, "", wish.replace, wish.loader))
            return Outcome(False, todo, self._observer.status, True)

    def cancel(self, judged: Waiting | None, uid: int) -> None:
        """Forget what waits, or what is remembered of one that failed; nothing is fine. `uid` asks for it.

        `judged` waited when that was allowed. Raises Busy: another does now, or its time has come and it is
        being carried out; Failed: the record cannot be removed.
        """
        if self._record is None:
            return
        if self.waiting not in (judged, None):
            raise errors.Busy("Another change waits now than a moment ago. Look at it, then cancel again.")
        if self._waiter is not None and self._waiter.due:
            raise errors.Busy(
                f"The driver has become idle, and nesting is being turned {self._record.nested} just now. "
                "Wait for the end of that, then change it back."
            )
        try:
            self._store.forget(_RECORD)
        except OSError as failure:
            raise errors.Failed(
                f"The waiting change cannot be taken from the disk ({failure}), so it still waits. "
                "Mend that, then cancel again."
            ) from failure
        log.info(
            f"User {uid} has cancelled what waited: nesting {self._record.nested}, {self._record.scope}.",
            message_id=log.PENDING_CANCELLED,
            uid=uid,
        )
        self._drop()

    def settled(self) -> None:
        """A change has succeeded, this one or another: nothing waits any more."""
        self._settle(own=self._waiter is not None and self._waiter.due)

    def nudge(self) -> None:
        """A module came or went: it may be time."""
        if self._waiter is not None:
            self._waiter.nudge()

    def checks(self) -> tuple[Check, ...]:
        """For Diagnose: the check `pending`."""
        asked = self._record
        if asked is None:
            return (Check.passed("pending", "No change waits for the driver to become idle."),)
        if asked.failure:
            text = (
                f"User {asked.uid} had asked to turn nesting {asked.nested} ({asked.scope}) when the driver "
                f"becomes idle. It did, and then: {asked.failure}"
            )
            remedy = f"Mend that and ask again: nestctl {_verb(asked)} --when-idle --scope={asked.scope}."
            return (Check("pending", Verdict.FAIL, text, remedy),)
        remedy = "End those who use the driver (nestctl holders), or take it back: nestctl cancel."
        return (Check("pending", Verdict.WARN, _sentence(asked), remedy),)

    async def close(self) -> None:
        """Wait no more in this process; what waits stays on the disk."""
        if self._waiter is not None:
            await self._waiter.stopped()
            self._waiter = None

    def _put(self, asked: Waiting) -> None:
        try:
            self._store.save(_RECORD, asked._asdict())
        except OSError as failure:
            raise errors.Failed(
                f"The change cannot be kept on the disk ({failure}), so it does not wait. Mend that, or stop "
                "those who use the driver."
            ) from failure
        before, self._record = self.waiting, asked
        if before is not None:
            log.info(
                f"Nesting {before.nested} ({before.scope}) waits no more: another change takes its place."
            )
        log.info(_sentence(asked), message_id=log.PENDING, uid=asked.uid)
        self._begin()
        self._on_change()

    def _begin(self) -> None:
        from nestd.nesting.waiter import Waiter  # noqa: PLC0415 -- start-up does not need it

        if self._waiter is not None:
            self._waiter.stop()
        wish = self.wish
        if wish is not None:
            self._waiter = Waiter(self._host, self._observer, self._changer, wish, self._ended)

    def _settle(self, *, own: bool) -> None:
        asked = self._record
        if asked is None:
            return
        if own:
            log.info(
                f"That was the change to nesting {asked.nested} ({asked.scope}) that user {asked.uid} had "
                "asked for and that waited for the driver to become idle.",
                message_id=log.PENDING_DONE,
                uid=asked.uid,
            )
        try:
            self._store.forget(_RECORD)
        except OSError as failure:
            log.error(
                f"A change that is settled would be made again by the next nestd: {failure}. "
                f"Remove {self._store.path(_RECORD)} before it starts."
            )
        self._drop()

    def _ended(self, failure: Exception | None) -> None:
        """Its time has come: it is done, or it has failed, once and for all."""
        if failure is None:
            self._settle(own=True)
            return
        asked = self._record
        self._waiter = None
        if asked is None:
            return
        self._record = asked._replace(failure=str(failure))
        log.error(
            f"The driver became idle, but nesting could not be turned {asked.nested} ({asked.scope}), as "
            f"user {asked.uid} had asked: {failure}",
            message_id=log.PENDING_FAILED,
            uid=asked.uid,
        )
        try:
            self._store.save(_RECORD, self._record._asdict())
        except OSError as error:
            log.error(f"The next nestd will try it again, as this cannot be kept: {error}")
        self._on_change()

    def _drop(self) -> None:
        self._record = None
        if self._waiter is not None:
            self._waiter.stop()
            self._waiter = None
        self._on_change()


def understood(record: Mapping[str, object]) -> Waiting | None:
    """What a record says; None if it makes no sense."""
    match record:
        case {
            "nested": "on" | "off" as nested,
            "scope": str(scope),
            "uid": int(uid),
            "failure": str(failure),
            "replace": bool(replace),
            "loader": str(loader),
        }:
            if scope in set(Scope) and 0 <= uid < 1 << 32:
                return Waiting(Nesting(nested), Scope(scope), uid, failure, replace, loader)
    return None


def _sentence(asked: Waiting) -> str:
    return (
        f"Nesting is to be turned {asked.nested} ({asked.scope}) as soon as nobody uses the driver; "
        f"user {asked.uid} has asked for it."
    )


def _verb(asked: Waiting) -> str:
    return "enable" if asked.nested is Nesting.ON else "disable"
