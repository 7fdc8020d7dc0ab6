# SPDX-License-Identifier: LGPL-2.1-or-later
"""A change that was interrupted, by a crash or a power cut: finished, or undone, before nestd serves.

In the same boot it goes on from the first step that had not ended, and back if that fails. After a reboot
the kernel has forgotten what was done to the driver; the drop-in counts: with the new one in place the
running driver is made to fit, without it nothing had happened.
"""

from __future__ import annotations

from collections.abc import Callable

from nestd import errors, log
from nestd.host.holders import holders
from nestd.host.machine import Host
from nestd.model import Check, DriverState, Scope, Verdict
from nestd.nesting import change, plan
from nestd.nesting.ledger import Ledger, Phase, Record
from nestd.nesting.status import Reading
from nestd.nesting.store import CHANGE


async def heal(host: Host, ledger: Ledger, read: Callable[[], Reading]) -> plan.Wish | None:
    """Settle what the ledger's record says, if it has one; the outcome is logged.

    Returns the wish that was fulfilled, None if none was. What cannot be undone stays in the ledger. OSError
    where the machine cannot be read.
    """
    record = ledger.record
    if record is None:
        return None
    rebooted = record.boot != ledger.boot
    if record.phase is not Phase.DOING:
        await _back(host, ledger, record, rebooted)
        return None
    try:
        return await _on(host, ledger, record, read, rebooted)
    except errors.BusError as failure:
        stuck = isinstance(failure, errors.RollbackFailed)
        _tell(record, str(failure), log.ROLLBACK_FAILED if stuck else log.HEALED)
        return None


async def _on(
    host: Host, ledger: Ledger, record: Record, read: Callable[[], Reading], rebooted: bool
) -> plan.Wish | None:
    """Go on with it. Raises as change.carry_out does."""
    todo, first = record.todo, record.ended
    if first == len(todo.steps):
        # Only the record was left. What came after is somebody else's doing.
        ledger.close(done=True)
    elif not rebooted:
        if change.is_done(host, todo.steps):
            first = len(todo.steps)
        await change.carry_out(host, ledger, todo, read, first)
    else:
        writes = _writes(todo)
        if not writes or not _in_place(host, writes):
            ledger.close(done=False)
            _tell(record, "the machine was restarted, and nothing of it is left", log.HEALED)
            return None
        await _fit(host, ledger, plan.Plan(todo.wish, writes), read)
    _tell(record, "it is finished now", log.HEALED)
    return todo.wish


async def _fit(host: Host, ledger: Ledger, todo: plan.Plan, read: Callable[[], Reading]) -> None:
    """Make the running driver fit the drop-in that is in place; if that is refused, put the drop-in back."""
    steps: tuple[plan.Step, ...] = ()
    if todo.wish.scope is Scope.BOTH:
        try:
            steps = plan.make(read(), todo.wish._replace(scope=Scope.RUNTIME), holders(host.root)).steps
        except errors.BusError as refusal:
            ledger.rewrite(todo.steps)
            trouble = await change.undo(host, ledger, str(refusal))
            if trouble:
                raise errors.RollbackFailed(
                    f"{refusal} Undoing it failed: {'; '.join(trouble)}."
                ) from refusal
            raise errors.ReloadFailed(f"{refusal} The old state is back.") from refusal
    await change.carry_out(host, ledger, todo._replace(steps=(*todo.steps, *steps)), read, len(todo.steps))


async def _back(host: Host, ledger: Ledger, record: Record, rebooted: bool) -> None:
    """Undo it, once more if that was tried before."""
    if rebooted:
        ledger.rewrite(_lasting(host, record.todo))
    reason = next(iter(record.trouble), "it was interrupted")
    trouble = await change.undo(host, ledger, reason)
    if trouble:
        words = f"it failed ({reason}) and cannot be undone: {'; '.join(trouble)}"
        _tell(record, words, log.ROLLBACK_FAILED)
    else:
        _tell(record, f"it had failed ({reason}), and the old state is back", log.HEALED)


def _lasting(host: Host, todo: plan.Plan) -> tuple[plan.Step, ...]:
    """What there is to undo after a reboot: the drop-in, and what the boot made of it, without parameters."""
    writes = _writes(todo)
    if not writes or not _in_place(host, writes):
        return writes
    unloads = (step for step in todo.steps if isinstance(step, plan.Unload))
    live = (step for step in unloads if host.kmod.state(step.driver.name) is DriverState.LOADED)
    return (*writes, *(step._replace(parameters={}) for step in live))


def check(host: Host, ledger: Ledger, busy: str) -> Check:
    """For Diagnose: the check `change`; `busy` is what runs.

    What was stuck and is in order again is forgotten. OSError where the machine cannot be read.
    """
    if busy:
        return Check.passed("change", f"A change is under way ({busy}).")
    record = ledger.record
    if record is not None and change.is_undone(host, record.todo.steps):
        ledger.settle()
        record = ledger.record
    if record is not None:
        wish = record.todo.wish
        text = (
            f"The change to nesting {wish.nested} (scope {wish.scope}) failed and could not be undone: "
            f"{'; '.join(record.trouble)}. Now {change.what_is(host, record.todo.steps)}."
        )
        remedy = "Mend what is named, then say what is wanted: `nestctl enable` or `nestctl disable`."
        return Check("change", Verdict.FAIL, text, remedy)
    if ledger.left:
        text = f"No change is half done, but {ledger.left}."
        return Check("change", Verdict.WARN, text, f"Mend that, then remove {CHANGE}.")
    if ledger.broken:
        text = f"There was a record of a change that nobody could understand: {CHANGE}.broken."
        remedy = "See what is now (`nestctl status`), say what is wanted, then remove that file."
        return Check("change", Verdict.WARN, text, remedy)
    return Check.passed("change", "No change is half done.")


def _writes(todo: plan.Plan) -> tuple[plan.WriteDropIn, ...]:
    return tuple(step for step in todo.steps if isinstance(step, plan.WriteDropIn))


def _in_place(host: Host, writes: tuple[plan.WriteDropIn, ...]) -> bool:
    return all(change.dropin_says(host, step.text) for step in writes)


def _tell(record: Record, words: str, message_id: str) -> None:
    wish = record.todo.wish
    say = log.error if message_id == log.ROLLBACK_FAILED else log.info
    say(
        f"The change to nesting {wish.nested} (scope {wish.scope}) was interrupted: {words.rstrip('.')}.",
        message_id=message_id,
    )
