# SPDX-License-Identifier: LGPL-2.1-or-later
"""The driver unloaded, brought to a state, put back. Decided by reading back, never by a tool's words.

Loading keeps the driver's other parameters. Many do not replay: what follows from the CPU or from another
parameter is shown in words that the kernel does not take as input ("EPT disabled"). So the driver is
loaded with its switch alone, and only where another parameter then differs, once more with those.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence

from nestd import errors
from nestd.host.holders import holders
from nestd.host.machine import Host
from nestd.model import Driver, DriverState, Nesting
from nestd.nesting import drivers, plan, steps

# How often it is loaded at most: udev, or a person, may load it between our unload and our load.
_LOADS = 5
# How often a parameter that was given is given again, for the same reason.
_GIVEN = 1


class StepFailed(errors.NestdError):
    """A step did not do what it says. The text is a clause: what and why."""


class DriverInUse(StepFailed):
    """Somebody took the driver after the plan was made."""


async def unload(host: Host, driver: Driver) -> None:
    """Unload the driver.

    One that is there again after rmmod had done its work was autoloaded: `bring` deals with that.
    """
    if not _loaded(host, driver):
        return
    words = await _tried(host.kmod.unload(driver.name))
    if not _loaded(host, driver) or not words:
        return
    users = host.kmod.refcnt(driver.name)
    if users:
        raise DriverInUse(plan.in_use(driver, users, holders(host.root)))
    raise StepFailed(f"{driver.name} could not be unloaded ({words})")


async def bring(host: Host, driver: Driver, nested: Nesting, keep: Mapping[str, str]) -> dict[str, str]:
    """Have the driver loaded with its switch and all in `keep` as asked, whatever is loaded now.

    Returns what of `keep` it took and yet shows otherwise: its own decision (kvm_intel's
    enable_shadow_vmcs hangs on the switch).
    """
    arguments = {driver.switch: steps.argument(driver, nested)}
    words = ""
    given = 0
    for _ in range(_LOADS):
        if _is(host, driver, nested, keep):
            return {}
        if _loaded(host, driver):
            lost = _replayable(_lost(host, driver, keep))
            given += _switch(host, driver) is nested and lost.items() <= arguments.items()
            if given > _GIVEN:
                break
            arguments |= lost
            await unload(host, driver)
        words = await _tried(host.kmod.load(driver.name, arguments))
        if words and not _loaded(host, driver):
            break
    if _switch(host, driver) is not nested:
        text = _words(arguments)
        raise StepFailed(f"{driver.name} could not be loaded with {text} ({words or 'it came up otherwise'})")
    return _lost(host, driver, keep)


async def put_back(host: Host, todo: Sequence[steps.Step]) -> None:
    """Bring the driver to where it was before the steps."""
    for step in todo:
        match step:
            case steps.Unload(before, driver, parameters):
                await _put_back(host, driver, before, parameters)
                return
            case steps.Load(driver=driver):
                await unload(host, driver)
                return


async def _put_back(host: Host, driver: Driver, before: Nesting, parameters: Mapping[str, str]) -> None:
    try:
        lost = await bring(host, driver, before, parameters)
    except StepFailed:
        if _loaded(host, driver):
            raise
        # Better without its parameters than not at all.
        await bring(host, driver, before, {})
        lost = _lost(host, driver, parameters)
    if lost:
        raise StepFailed(f"{driver.name} is loaded as before, but without {_words(lost)}")


def is_done(host: Host, todo: Sequence[steps.Step]) -> bool:
    """Whether the driver is as the steps have it."""
    loads = (step for step in todo if isinstance(step, steps.Load))
    return all(_is(host, step.driver, step.nested, step.keep) for step in loads)


def is_undone(host: Host, todo: Sequence[steps.Step]) -> bool:
    """Whether the driver is as it was before the steps."""
    for step in todo:
        match step:
            case steps.Unload(before, driver, parameters):
                return _is(host, driver, before, parameters)
            case steps.Load(driver=driver):
                return not _loaded(host, driver)
    return True


def driver_of(todo: Sequence[steps.Step]) -> Driver | None:
    """The driver that the steps reload."""
    return next((step.driver for step in todo if isinstance(step, steps.Unload | steps.Load)), None)


def what_is(host: Host, driver: Driver) -> str:
    """What is loaded now, in words."""
    switch = _switch(host, driver)
    state = host.kmod.state(driver.name)
    return f"{driver.name} is {state}" + (f" with nested {switch}" if switch else "")


def _is(host: Host, driver: Driver, nested: Nesting, keep: Mapping[str, str]) -> bool:
    return _switch(host, driver) is nested and not _lost(host, driver, keep)


def _loaded(host: Host, driver: Driver) -> bool:
    return host.kmod.state(driver.name) is DriverState.LOADED


def _switch(host: Host, driver: Driver) -> Nesting | None:
    if not _loaded(host, driver):
        return None
    value = host.kmod.parameters(driver.name).get(driver.switch)
    return None if value is None else drivers.switch_of(driver, value)


def _lost(host: Host, driver: Driver, keep: Mapping[str, str]) -> dict[str, str]:
    """What of `keep` the driver does not show."""
    shown = host.kmod.parameters(driver.name) if keep else {}
    return {name: value for name, value in keep.items() if shown.get(name) != value}


def _replayable(parameters: Mapping[str, str]) -> dict[str, str]:
    """Those that can be given as they are shown: "EPT disabled", "not required", "(null)" and "" cannot."""
    return {
        name: value
        for name, value in parameters.items()
        if value and not any(one.isspace() or one in '()"' for one in value)
    }


def _words(arguments: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in arguments.items())


async def _tried(work: Awaitable[None]) -> str:
    """Do it; the tool's words where it failed, empty where it did not."""
    try:
        await work
    except (errors.ToolMissing, errors.ToolFailed) as failure:
        return str(failure)
    return ""
