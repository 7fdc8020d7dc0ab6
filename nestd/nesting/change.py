# SPDX-License-Identifier: LGPL-2.1-or-later
"""A plan carried out: each step read back, and on any failure all that was done undone in reverse."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from nestd import errors
from nestd.host import files
from nestd.host.holders import holders
from nestd.host.machine import Host
from nestd.model import Driver, DriverState, Nesting
from nestd.nesting import drivers, dropin, plan
from nestd.nesting.status import Reading

# udev may load the driver between our unload and our load; with runtime scope it then has the
# old value and the pair is done again. It has no reason to do so twice.
_ATTEMPTS = 3


class _StepFailed(errors.NestdError):
    """A step did not do what it says. The text is a clause: what and why."""


class _DriverInUse(_StepFailed):
    """Somebody took the driver after the plan was made."""


async def carry_out(host: Host, todo: plan.Plan, read: Callable[[], Reading]) -> Reading:
    """Run the steps in order and read the outcome back.

    Returns the reading afterwards. Raises InUse or ReloadFailed with the old state back, or RollbackFailed,
    which says what is loaded now. Must not be cancelled half-way: the caller shields it.
    """
    done: list[plan.Step] = []
    try:
        if any(isinstance(step, plan.Unload | plan.Load) for step in todo.steps):
            # A driver that was unloaded and cannot be loaded for want of a tool could not be put back.
            host.kmod.require_tools()
        for step in todo.steps:
            # Before, not after: a step that fails half-way is undone too.
            done.append(step)
            await _perform(host, step)
        return _confirmed(todo, read())
    except (errors.NestdError, OSError) as failure:
        reason = _clause(failure)
        trouble = await _undo(host, done)
        if trouble:
            raise errors.RollbackFailed(
                f"The change failed: {reason}. Undoing it failed too: {'; '.join(trouble)}. "
                f"Now {_what_is(host, todo)}. See `journalctl -u nestd`; `nestctl status` says what is true."
            ) from failure
        if isinstance(failure, _DriverInUse):
            raise errors.InUse(reason) from failure
        raise errors.ReloadFailed(f"The change failed: {reason}. The old state is back.") from failure


def _confirmed(todo: plan.Plan, reading: Reading) -> Reading:
    """The reading, if it shows what was wished."""
    status, wish = reading.status, todo.wish
    if wish.scope.runtime and status.nested is not wish.nested and status.nested is not Nesting.UNSUPPORTED:
        raise _StepFailed(
            f"after the reload KVM itself says that nesting is {status.nested}, not {wish.nested}"
        )
    if wish.scope.boot and status.nested_at_boot not in {wish.nested, Nesting.UNSUPPORTED}:
        raise _StepFailed(f"{status.boot_source} says that the next boot gives {status.nested_at_boot}")
    return reading


async def _perform(host: Host, step: plan.Step) -> None:
    match step:
        case plan.WriteDropIn(text=text):
            files.replace(host.root, dropin.PATH, text, make_folder=True)
        case plan.Unload(driver=driver):
            await _unload(host, driver)
        case plan.Load(driver=driver, nested=nested):
            await _load(host, driver, nested)


async def _undo(host: Host, done: list[plan.Step]) -> list[str]:
    """Undo in reverse; goes on after a failure and returns what failed, as clauses."""
    trouble = []
    for step in reversed(done):
        try:
            await _undo_step(host, step)
        except (errors.NestdError, OSError) as failure:
            trouble.append(_clause(failure))
    return trouble


def _clause(failure: Exception) -> str:
    """What failed and why, as a clause for a sentence."""
    if isinstance(failure, OSError) and failure.filename:
        return f"{failure.filename}: {failure.strerror}"
    return str(failure).rstrip(".")


async def _undo_step(host: Host, step: plan.Step) -> None:
    match step:
        case plan.WriteDropIn(text=text, before=before) if _dropin_says(host, text):
            if before is None:
                files.remove(host.root, dropin.PATH)
            else:
                files.replace(host.root, dropin.PATH, before)
        case plan.Load(driver=driver) if host.kmod.state(driver.name) is DriverState.LOADED:
            await _unload(host, driver)
        case plan.Unload(driver=driver, before=before) if _switch(host, driver) is not before:
            await _load(host, driver, before)


def _dropin_says(host: Host, text: str) -> bool:
    """Whether the drop-in was replaced; a write that failed has left whatever was there."""
    try:
        return host.root.read(dropin.PATH) == text
    except IsADirectoryError:
        return False


async def _unload(host: Host, driver: Driver) -> None:
    """Unload the driver; decided by reading back, never by the tool's words.

    One that is there again after rmmod had done its work was autoloaded: `_load` deals with that.
    """
    words = await _tried(host.kmod.unload(driver.name))
    if host.kmod.state(driver.name) is not DriverState.LOADED or not words:
        return
    users = host.kmod.refcnt(driver.name)
    if users:
        raise _DriverInUse(plan.in_use(driver, users, holders(host.root)))
    raise _StepFailed(f"{driver.name} could not be unloaded ({words})")


async def _load(host: Host, driver: Driver, nested: Nesting) -> None:
    """Load the driver with its switch as asked, surviving an autoload that comes in between."""
    argument = plan.Load(driver, nested).argument
    words = ""
    for _ in range(_ATTEMPTS):
        words = await _tried(host.kmod.load(driver.name, {driver.switch: argument}))
        if host.kmod.state(driver.name) is not DriverState.LOADED:
            break
        if _switch(host, driver) is nested:
            return
        await _unload(host, driver)
    raise _StepFailed(
        f"{driver.name} could not be loaded with {driver.switch}={argument} "
        f"({words or 'it came up otherwise'})"
    )


async def _tried(work: Awaitable[None]) -> str:
    """Do it; the tool's words where it failed, empty where it did not."""
    try:
        await work
    except (errors.ToolMissing, errors.ToolFailed) as failure:
        return str(failure)
    return ""


def _switch(host: Host, driver: Driver) -> Nesting | None:
    if host.kmod.state(driver.name) is not DriverState.LOADED:
        return None
    value = host.kmod.parameters(driver.name).get(driver.switch)
    return None if value is None else drivers.read_switch(value)


def _what_is(host: Host, todo: plan.Plan) -> str:
    """What is loaded now, in words."""
    for step in todo.steps:
        if isinstance(step, plan.Unload | plan.Load):
            driver = step.driver
            state = host.kmod.state(driver.name)
            switch = _switch(host, driver)
            return f"{driver.name} is {state}" + (f" with nested {switch}" if switch else "")
    return f"{dropin.PATH} may hold either text"
