# SPDX-License-Identifier: LGPL-2.1-or-later
"""A change that was interrupted, by a crash or a power cut: finished, or undone, before nestd serves.

In the same boot it goes on from the first step that had not ended, and back if that fails. After a reboot the
kernel has forgotten what was done to the driver; what the boot reads counts: if the first of it is in place,
the rest of it is done and the running driver made to fit, else nothing had happened.
"""

from __future__ import annotations

from collections.abc import Callable

from nestd import errors, log
from nestd.host import outside
from nestd.host.holders import holders
from nestd.host.machine import Host
from nestd.model import Check, DriverState, Scope, Verdict
from nestd.nesting import change, plan, steps
from nestd.nesting.ledger import Ledger, Phase, Record
from nestd.nesting.status import Reading
from nestd.nesting.store import CHANGE

# Seconds that systemd may take to end a tool that is out of time.
_GRACE = 100.0


async def heal(host: Host, ledger: Ledger, read: Callable[[], Reading]) -> steps.Wish | None:
    """Settle what the ledger's record says, if it has one; the outcome is logged.

    Returns the wish that was fulfilled, None if none was. What cannot be undone stays in the ledger. OSError
    where the machine cannot be read.
    """
    record = ledger.record
    if record is None:
        return None
    rebooted = record.boot != ledger.boot
    if not rebooted:
        await _wait_for_tool(host, record)
    if record.phase is not Phase.DOING:
        await _back(host, ledger, record, rebooted)
        return None
    try:
        return await _on(host, ledger, record, read, rebooted)
    except errors.BusError as failure:
        stuck = isinstance(failure, errors.RollbackFailed)
        _tell(record, str(failure), log.ROLLBACK_FAILED if stuck else log.HEALED)
        return None


async def _wait_for_tool(host: Host, record: Record) -> None:
    """A tool outlives the nestd that started it: nothing is changed before its end."""
    runs = [step for step in record.todo.steps[: record.begun] if isinstance(step, steps.Run)]
    if runs:
        try:
            await outside.settle(host.units, max(run.limit for run in runs) + _GRACE)
        except (TimeoutError, errors.CallFailed) as failure:
            log.warning(f"Whether {outside.UNIT} has come to its end cannot be told: {failure}")


async def _on(
    host: Host, ledger: Ledger, record: Record, read: Callable[[], Reading], rebooted: bool
) -> steps.Wish | None:
    """Go on with it. Raises as change.carry_out does."""
    todo, first = record.todo, record.ended
    if first == len(todo.steps):
        # Only the record was left. What came after is somebody else's doing.
        change.forget_copies(host)
        ledger.close(done=True)
    elif not rebooted:
        if change.is_done(host, todo.steps, first):
            first = len(todo.steps)
        await change.carry_out(host, ledger, todo, read, first)
    elif _begun(host, record):
        whole = change.lasting(todo.steps)
        await _fit(host, ledger, todo._replace(steps=whole), min(first, len(whole)), read)
    else:
        change.forget_copies(host)
        ledger.close(done=False)
        _tell(record, "the machine was restarted, and nothing of it is left", log.HEALED)
        return None
    _tell(record, "it is finished now", log.HEALED)
    return todo.wish


async def _fit(host: Host, ledger: Ledger, todo: steps.Plan, first: int, read: Callable[[], Reading]) -> None:
    """Finish what the boot reads, and make the running driver fit; if that is refused, put all back."""
    more: tuple[steps.Step, ...] = ()
    if todo.wish.scope is Scope.BOTH:
        try:
            now = todo.wish._replace(scope=Scope.RUNTIME)
            more = plan.runtime(read(), now, holders(host.root))
        except errors.BusError as refusal:
            ledger.rewrite(todo.steps)
            trouble = await change.undo(host, ledger, str(refusal))
            if trouble:
                raise errors.RollbackFailed(
                    f"{refusal} Undoing it failed: {'; '.join(trouble)}."
                ) from refusal
            raise errors.ReloadFailed(f"{refusal} The old state is back.") from refusal
    await change.carry_out(host, ledger, todo._replace(steps=(*todo.steps, *more)), read, first)


async def _back(host: Host, ledger: Ledger, record: Record, rebooted: bool) -> None:
    """Undo it, once more if that was tried before."""
    if rebooted:
        ledger.rewrite(_left(host, record))
    reason = next(iter(record.trouble), "it was interrupted")
    trouble = await change.undo(host, ledger, reason)
    if trouble:
        words = f"it failed ({reason}) and cannot be undone: {'; '.join(trouble)}"
        _tell(record, words, log.ROLLBACK_FAILED)
    else:
        _tell(record, f"it had failed ({reason}), and the old state is back", log.HEALED)


def _left(host: Host, record: Record) -> tuple[steps.Step, ...]:
    """What there is to undo after a reboot: what lasts, and what the boot made of it, without parameters."""
    whole = change.lasting(record.todo.steps[: record.begun])
    if not _begun(host, record):
        return whole
    unloads = (step for step in record.todo.steps if isinstance(step, steps.Unload))
    live = (step for step in unloads if host.kmod.state(step.driver.name) is DriverState.LOADED)
    return (*whole, *(step._replace(parameters={}) for step in live))


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
            f"{_title(wish)} failed and could not be undone: "
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


def _begun(host: Host, record: Record) -> bool:
    """Whether the first of what lasts is there."""
    match change.lasting(record.todo.steps)[:1]:
        case (steps.WriteFile(path, text, _),):
            return change.says(host, path, text)
        case (steps.Run(),):
            return record.begun > 0
    return False


def _title(wish: steps.Wish) -> str:
    if wish.nested is None:
        return "Taking back what was set for the next boots"
    return f"The change to nesting {wish.nested} (scope {wish.scope})"


def _tell(record: Record, words: str, message_id: str) -> None:
    say = log.error if message_id == log.ROLLBACK_FAILED else log.info
    say(
        f"{_title(record.todo.wish)} was interrupted: {words.rstrip('.')}.",
        message_id=message_id,
    )
