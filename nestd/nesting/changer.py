# SPDX-License-Identifier: LGPL-2.1-or-later
"""One change at a time, and each to its end, whatever becomes of the one who asked."""

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from nestd import errors, log, tasks
from nestd.host.machine import Host
from nestd.model import Check, Nesting, Status
from nestd.nesting.observer import Observer
from nestd.nesting.store import CHANGE

if TYPE_CHECKING:
    from nestd.nesting import steps
    from nestd.nesting.ledger import Ledger

T = TypeVar("T")
_OPERATIONS = {Nesting.ON: "enable", Nesting.OFF: "disable", None: "revert"}


class Outcome(NamedTuple):
    """What a change came to: the steps that were done (or would be), and the status after them.

    `pending`: they wait until nobody uses the driver.
    """

    changed: bool
    steps: tuple[str, ...]
    status: Status
    pending: bool = False


class Progress(NamedTuple):
    """A change under way: its `steps` in words, and the number of the one that runs, or how many there are.

    Then it is read back. `operation` is `enable`, `disable` or `revert`.
    """

    operation: str
    steps: tuple[str, ...]
    current: int


class Changer:
    """Carries out wishes, one at a time. Each of `on_end` is told each wish that is fulfilled, at its end.

    Each of `on_progress` is told of each step that begins, and None at the end; `failure` is then why it
    failed, or "". `loader` gives the back end for the command line that is taken where the wish names none;
    "": found out.
    """

    def __init__(self, host: Host, observer: Observer, loader: Callable[[], str] = str) -> None:
        self._host = host
        self._observer = observer
        self._loader = loader
        self.on_progress: list[Callable[[Progress | None], None]] = []
        self.failure = ""
        self._ledger: Ledger | None = None
        self._running: tasks.Task[Any] | None = None
        self.on_end: list[Callable[[steps.Wish], None]] = []
        # What runs, in words; "" if nothing does.
        self.busy = ""

    @property
    def interrupted(self) -> bool:
        """Whether an earlier daemon may have left a change half done: then `heal`."""
        try:
            return self._host.root.exists(CHANGE)
        except OSError:
            return True  # heal says what is wrong

    async def heal(self) -> None:
        """Finish or undo a change that an earlier daemon was interrupted in; it is logged what came of it."""
        from nestd.nesting.heal import heal  # noqa: PLC0415 -- rarely needed

        async def work() -> tuple[None, "steps.Wish | None"]:
            with self._observer.held():
                ledger = self._journal()
                ledger.load()
                return None, await heal(self._host, ledger, self._observer.refresh)

        try:
            await self._alone("settling a change that was interrupted", work())
        except OSError as failure:
            log.error(f"Whether a change was interrupted cannot be told, or not be settled: {failure}")

    async def change(self, wish: "steps.Wish", dry_run: bool) -> Outcome:
        """Make it so. The refusals of plan.make, the failures of change.carry_out, and Busy.

        If the caller is cancelled, the change goes on to its end all the same.
        """
        if dry_run:
            return Outcome(False, await self.steps_of(wish), self._observer.status)
        if self.busy:
            raise errors.Busy(f"Another change is under way ({self.busy}). Wait for its end, then try again.")
        return await self._alone(wish.words, self._run(wish))

    async def steps_of(self, wish: "steps.Wish", *, idle: bool = False) -> tuple[str, ...]:
        """The steps of a wish, in words; `idle`: as if nobody used the driver. The refusals of plan.make."""
        return tuple(str(step) for step in (await self._plan(wish, idle=idle)).steps)

    async def settle(self) -> None:
        """Wait until no change is under way. Its failure is its caller's, not ours."""
        if self._running is not None:
            await tasks.wait({self._running})

    def checks(self) -> tuple[Check, ...]:
        """For Diagnose: the check `change`."""
        from nestd.nesting.heal import check  # noqa: PLC0415 -- only Diagnose needs it

        return (check(self._host, self._journal(), self.busy),)

    async def _plan(self, wish: "steps.Wish", *, idle: bool = False) -> "steps.Plan":
        from nestd.host.holders import holders  # noqa: PLC0415 -- start-up needs none of these
        from nestd.nesting import plan  # noqa: PLC0415

        # In the middle of a change (a dry-run may come then), the last reading has to do.
        reading = self._observer.reading if self._observer.holding else self._observer.refresh()
        if idle:
            reading = reading._replace(status=reading.status._replace(users=0))
        held_by = holders(self._host.root) if reading.status.users else ()
        return await plan.make(self._host, reading, wish, held_by, self._loader())

    async def _alone(self, what: str, work: Coroutine[Any, Any, tuple[T, "steps.Wish | None"]]) -> T:
        """Run it as a task of its own, `busy` saying so until its end; then tell the wish it fulfilled."""

        async def run() -> T:
            try:
                result, wish = await work
            finally:
                self.busy = ""
                self._running = None
            if wish is not None:
                self._tell(wish)
            return result

        self.busy = what
        self._running = task = tasks.create_task(run())
        # Its caller may be gone by the time it fails; the failure is in the journal either way.
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return await task

    async def _run(self, wish: "steps.Wish") -> "tuple[Outcome, steps.Wish]":
        from nestd.nesting import change, kept  # noqa: PLC0415 -- start-up does not need it

        todo = await self._plan(wish)
        done = tuple(str(step) for step in todo.steps)
        if not done:
            if self._ledger is not None:
                self._ledger.settle()
            return Outcome(False, done, self._observer.status), wish

        def progress(now: Progress | None) -> None:
            for told in self.on_progress:
                told(now)

        def on_step(number: int) -> None:
            progress(Progress(_OPERATIONS[wish.nested], done, number))

        # Until it is known better: what nobody foresaw is no success.
        self.failure = "something unforeseen, which the journal tells"
        try:
            with self._observer.held():
                if self._journal().record is None:  # what is stuck may still be put back
                    kept.forget(self._host)
                read = self._observer.refresh
                await change.carry_out(self._host, self._journal(), todo, read, on_step=on_step)
            self.failure = ""
        except (errors.BusError, OSError) as failure:
            self.failure = str(failure)
            failed = isinstance(failure, errors.RollbackFailed)
            log.error(str(failure), message_id=log.ROLLBACK_FAILED if failed else log.CHANGE_FAILED)
            raise
        finally:
            progress(None)
        status = self._observer.status
        log.info(
            f"Nesting is {status.nested}, at the next boot {status.nested_at_boot}: {'; '.join(done)}.",
            message_id=log.CHANGED,
        )
        return Outcome(True, done, status), wish

    def _tell(self, wish: "steps.Wish") -> None:
        for told in self.on_end:
            told(wish)

    def _journal(self) -> "Ledger":
        if self._ledger is None:
            from nestd.nesting.ledger import Ledger  # noqa: PLC0415 -- start-up does not need it

            self._ledger = Ledger(self._host.root, self._host.release)
        return self._ledger
