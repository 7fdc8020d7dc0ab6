# SPDX-License-Identifier: LGPL-2.1-or-later
"""A plan carried out: each step journalled and read back, and on any failure all undone in reverse.

Each step, and the undoing of each, looks at what is there first: done twice, it is as if done once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nestd import errors, log
from nestd.host import files
from nestd.host.machine import Host
from nestd.model import Nesting
from nestd.nesting import drivers, dropin, plan, reload
from nestd.nesting.ledger import Ledger
from nestd.nesting.status import KVM_API_VERSION, Reading


async def carry_out(
    host: Host, ledger: Ledger, todo: plan.Plan, read: Callable[[], Reading], first: int = 0
) -> Reading:
    """Run the steps in order, from the one with the number `first` on, and read the outcome back.

    Returns the reading afterwards. Raises InUse or ReloadFailed with the old state back, or RollbackFailed,
    which says what is loaded now and stays in the ledger. Must not be cancelled half-way.
    """
    ledger.begin(todo, first)
    try:
        if any(isinstance(step, plan.Unload | plan.Load) for step in todo.steps[first:]):
            # A driver that was unloaded and cannot be loaded for want of a tool could not be put back.
            host.kmod.require_tools()
        for number, step in enumerate(todo.steps[first:], first):
            ledger.begun(number)
            await _perform(host, step)
            ledger.ended(number)
        reading = _confirmed(todo, read())
    except (errors.NestdError, OSError) as failure:
        reason = _clause(failure)
        trouble = await undo(host, ledger, reason)
        if trouble:
            raise errors.RollbackFailed(
                f"The change failed: {reason}. Undoing it failed too: {'; '.join(trouble)}. "
                f"Now {what_is(host, todo.steps)}. See `journalctl -u nestd`; `nestctl status` says what is "
                "true."
            ) from failure
        if isinstance(failure, reload.DriverInUse):
            raise errors.InUse(reason) from failure
        raise errors.ReloadFailed(f"The change failed: {reason}. The old state is back.") from failure
    ledger.close(done=True)
    return reading


async def undo(host: Host, ledger: Ledger, reason: str) -> tuple[str, ...]:
    """Undo all steps of the ledger's record that were begun; `reason` says why, as a clause.

    Goes on after a failure. Returns what failed, as clauses; it stays in the ledger then.
    """
    record = ledger.record
    assert record is not None
    trouble = []
    written = ""
    try:
        ledger.undoing(reason)
    except OSError as failure:
        written = _clause(failure)
    steps = record.todo.steps[: record.begun]
    for put_back in (reload.put_back, _put_back_dropin):
        try:
            await put_back(host, steps)
        except (errors.NestdError, OSError) as failure:
            trouble.append(_clause(failure))
    if not trouble:
        left = ledger.close(done=False)
        return (f"{left}, so that nestd would go on with the change when it starts again",) if left else ()
    if written:
        trouble.append(written)
    try:
        ledger.stuck(reason, *trouble)
    except OSError as failure:
        trouble.append(_clause(failure))
    return tuple(trouble)


def is_done(host: Host, steps: Sequence[plan.Step]) -> bool:
    """Whether all that the steps are for is so now. OSError."""
    dropins = (step.text for step in steps if isinstance(step, plan.WriteDropIn))
    return all(dropin_says(host, text) for text in dropins) and reload.is_done(host, steps)


def is_undone(host: Host, steps: Sequence[plan.Step]) -> bool:
    """Whether all is as it was before the steps. OSError."""
    dropins = (step.before for step in steps if isinstance(step, plan.WriteDropIn))
    return all(dropin_says(host, before) for before in dropins) and reload.is_undone(host, steps)


def what_is(host: Host, steps: Sequence[plan.Step]) -> str:
    """What is loaded now, or else lies there, in words."""
    driver = reload.driver_of(steps)
    return reload.what_is(host, driver) if driver else f"{dropin.PATH} may hold either text"


def _confirmed(todo: plan.Plan, reading: Reading) -> Reading:
    """The reading, if it shows what was wished."""
    status, wish = reading.status, todo.wish
    if wish.scope.runtime and status.nested is not Nesting.UNSUPPORTED:
        if status.nested is not wish.nested:
            raise reload.StepFailed(
                f"after the reload KVM itself says that nesting is {status.nested}, not {wish.nested}"
            )
        if wish.nested is Nesting.OFF and (status.guest_extension or _silent(reading)):
            raise reload.StepFailed(
                "after the reload KVM itself does not say that guests get no "
                f"{status.extension}, so it cannot be promised"
            )
    if wish.scope.boot and status.nested_at_boot not in {wish.nested, Nesting.UNSUPPORTED}:
        raise reload.StepFailed(f"{status.boot_source} says that the next boot gives {status.nested_at_boot}")
    return reading


def _silent(reading: Reading) -> bool:
    """Whether a driver is there, and KVM did not answer."""
    live = reading.status.driver_state in drivers.LIVE
    return live and reading.status.kvm_api != KVM_API_VERSION


async def _perform(host: Host, step: plan.Step) -> None:
    match step:
        case plan.WriteDropIn(text=text):
            files.replace(host.root, dropin.PATH, text, make_folder=True)
        case plan.Unload(driver=driver):
            await reload.unload(host, driver)
        case plan.Load(driver=driver, nested=nested, keep=keep):
            lost = await reload.bring(host, driver, nested, keep)
            if lost:
                given = " ".join(f"{name}={value}" for name, value in lost.items())
                log.warning(f"{driver.name} was given {given} again, and shows it otherwise now.")


async def _put_back_dropin(host: Host, steps: Sequence[plan.Step]) -> None:
    for step in steps:
        # What somebody else wrote meanwhile, or what a write that failed has left, is not ours to undo.
        if isinstance(step, plan.WriteDropIn) and dropin_says(host, step.text):
            if step.before is None:
                files.remove(host.root, dropin.PATH)
            else:
                files.replace(host.root, dropin.PATH, step.before)


def dropin_says(host: Host, text: str | None) -> bool:
    """Whether the drop-in has that text; None: whether there is none."""
    try:
        return host.root.read(dropin.PATH) == text
    except IsADirectoryError:
        return False


def _clause(failure: Exception) -> str:
    """What failed and why, as a clause for a sentence."""
    if isinstance(failure, OSError) and failure.filename:
        return f"{failure.filename}: {failure.strerror}"
    return str(failure).rstrip(".")
