# SPDX-License-Identifier: LGPL-2.1-or-later
"""A plan carried out: each step journalled and read back, and on any failure all undone in reverse.

Each step, and the undoing of each, looks at what is there first: done twice, it is as if done once.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence

from nestd import errors, log
from nestd.host import files, outside
from nestd.host.machine import Host
from nestd.nesting import kept, reload, steps
from nestd.nesting.ledger import Ledger
from nestd.nesting.readback import read_back
from nestd.nesting.status import Reading
from nestd.nesting.store import LASTING

# Seconds, for sync(1).
_SYNC = 120.0
_LASTING = steps.WriteFile | steps.Run


async def carry_out(
    host: Host,
    ledger: Ledger,
    todo: steps.Plan,
    read: Callable[[], Reading],
    first: int = 0,
    on_step: Callable[[int], None] = lambda _: None,
) -> Reading:
    """Run the steps in order, from the one with the number `first` on, and read the outcome back.

    `on_step` is told the number of each step that begins, and at last how many there are. Returns the reading
    afterwards. Raises InUse, ReloadFailed or BootloaderFailed with the old state back, or RollbackFailed,
    which says what is there now and stays in the ledger. Must not be cancelled half-way.
    """
    ledger.begin(todo, first)
    number = first
    try:
        if reload.driver_of(todo.steps[first:]):
            # A driver that was unloaded and cannot be loaded for want of a tool could not be put back.
            host.kmod.require_tools()
        for number, step in enumerate(todo.steps[first:], first):
            on_step(number)
            ledger.begun(number)
            await _perform(host, step)
            ledger.ended(number)
        on_step(len(todo.steps))
        reading = await read_back(host, todo, read)
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
        if any(isinstance(step, steps.Run) for step in todo.steps[number : number + 1]):
            raise errors.BootloaderFailed(f"{reason}. The old state is back.") from failure
        raise errors.ReloadFailed(f"The change failed: {reason}. The old state is back.") from failure
    forget_copies(host)
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
    begun = record.todo.steps[: record.begun]
    for put_back in (reload.put_back, _put_back_files, _take_back_runs):
        try:
            await put_back(host, begun)
        except (errors.NestdError, OSError) as failure:
            trouble.append(_clause(failure))
    if not trouble:
        if record.earlier is None:
            forget_copies(host)
        left = ledger.close(done=False)
        return (f"{left}, so that nestd would go on with the change when it starts again",) if left else ()
    if written:
        trouble.append(written)
    try:
        ledger.stuck(reason, *trouble)
    except OSError as failure:
        trouble.append(_clause(failure))
    return tuple(trouble)


def is_done(host: Host, todo: Sequence[steps.Step], ended: int = 0) -> bool:
    """Whether all that the steps are for is so now, so many of them having ended. OSError.

    Whether a tool has done its work shows only in that it ended.
    """
    if any(isinstance(step, steps.Run) for step in todo[ended:]):
        return False
    return all(says(host, path, text) for path, text in _files(todo).items()) and reload.is_done(host, todo)


def is_undone(host: Host, todo: Sequence[steps.Step]) -> bool:
    """Whether all is as it was before the steps. OSError."""
    before = {step.path: step.before for step in reversed(todo) if isinstance(step, steps.WriteFile)}
    runs = [step for step in todo if isinstance(step, steps.Run)]
    return (
        all(says(host, path, text) for path, text in before.items())
        and reload.is_undone(host, todo)
        and not any(run.undo for run in runs)
        and kept.same(host, tuple(path for run in runs for path in run.keeps))
    )


def lasting(todo: Sequence[steps.Step]) -> tuple[steps.Step, ...]:
    """Those that outlive a reboot; they come before all others."""
    return tuple(step for step in todo if isinstance(step, _LASTING))


def what_is(host: Host, todo: Sequence[steps.Step]) -> str:
    """What is loaded now, or else lies there, in words."""
    driver = reload.driver_of(todo)
    if driver:
        return reload.what_is(host, driver)
    touched = [*_files(todo), *(path for step in todo if isinstance(step, steps.Run) for path in step.keeps)]
    return f"{', '.join(touched) or 'what was changed'} may be old or new"


def _files(todo: Sequence[steps.Step]) -> dict[str, str | None]:
    """What each file is to say in the end."""
    return {step.path: step.text for step in todo if isinstance(step, steps.WriteFile)}


async def _perform(host: Host, step: steps.Step) -> None:
    match step:
        case steps.WriteFile(path=path, text=None):
            files.remove(host.root, path)
        case steps.WriteFile(path=path, text=str(text)):
            files.replace(host.root, path, text, _mode(host, path), make_folder=True)
        case steps.Run():
            await kept.keep(host, step.keeps)
            try:
                await outside.run(host.units, host.commands, step.argv, step.limit)
            except errors.ToolFailed as failure:
                tool = str(step).removeprefix("run ")
                raise errors.ToolFailed((tool,), failure.code, failure.words) from failure
            await _sync(host, step.keeps)
        case steps.Unload(driver=driver):
            await reload.unload(host, driver)
        case steps.Load(driver=driver, nested=nested, keep=keep):
            lost = await reload.bring(host, driver, nested, keep)
            if lost:
                given = " ".join(f"{name}={value}" for name, value in lost.items())
                log.warning(f"{driver.name} was given {given} again, and shows it otherwise now.")


def _mode(host: Host, path: str) -> int:
    """Somebody else's file keeps its own."""
    try:
        return stat.S_IMODE(os.stat(host.root.path(path)).st_mode)
    except FileNotFoundError:
        return 0o600 if path.startswith(f"{LASTING}/") else 0o644


async def _sync(host: Host, paths: Sequence[str]) -> None:
    """Have on the disk what a tool has made: the tools themselves do not see to it."""
    there = [host.root.path(path) for path in (*paths, "/boot") if host.root.exists(path)]
    if there:
        done = await host.commands.run("sync", "-f", *there, limit=_SYNC)
        if done.code:
            raise errors.ToolFailed(("sync", "-f", *there), done.code, done.err)


async def _put_back_files(host: Host, todo: Sequence[steps.Step]) -> None:
    for step in reversed(todo):
        # What somebody else wrote meanwhile, or what a write that failed has left, is not ours to undo.
        if isinstance(step, steps.WriteFile) and says(host, step.path, step.text):
            if step.before is None:
                files.remove(host.root, step.path)
            else:
                files.replace(host.root, step.path, step.before, _mode(host, step.path))


async def _take_back_runs(host: Host, todo: Sequence[steps.Step]) -> None:
    for step in reversed(todo):
        if isinstance(step, steps.Run):
            if step.undo:
                await outside.run(host.units, host.commands, step.undo, step.limit)
            await kept.put_back(host, step.keeps)


def forget_copies(host: Host) -> None:
    """Nothing will be put back any more. What is in the way is logged: it harms nobody."""
    try:
        kept.forget(host)
    except OSError as failure:
        log.warning(f"Copies that nobody needs any more could not be removed from {kept.FOLDER}: {failure}")


def says(host: Host, path: str, text: str | None) -> bool:
    """Whether a file has that text; None: whether there is none."""
    try:
        return host.root.read(path) == text
    except IsADirectoryError:
        return False


def _clause(failure: Exception) -> str:
    """What failed and why, as a clause for a sentence."""
    if isinstance(failure, OSError) and failure.filename:
        return f"{failure.filename}: {failure.strerror}"
    return str(failure).rstrip(".")
