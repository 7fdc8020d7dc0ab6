# SPDX-License-Identifier: LGPL-2.1-or-later
"""From what is and what is wished to the steps between them, or to a refusal. Nothing is touched.

What the next boot reads comes first: if udev loads the driver in the moment between unload and load, it then
gets the new value too.
"""

from __future__ import annotations

from collections.abc import Sequence

from nestd import errors
from nestd.host.machine import Host
from nestd.model import Driver, DriverState, Holder, Nesting, Obstacle, Scope
from nestd.nesting import bootplan, obstacles
from nestd.nesting.status import Reading
from nestd.nesting.steps import Load, Plan, Step, Unload, Wish


async def make(host: Host, reading: Reading, wish: Wish, holders: Sequence[Holder], loader: str = "") -> Plan:
    """The plan for a wish.

    Raises NotSupported, BootloaderUnknown, BootloaderFailed, Overridden or InUse, when nothing has been
    touched yet, and OSError. `holders` name who uses the driver, for the refusal's text. `loader` is the back
    end for the command line, if the wish names none (nestd.conf(5)).
    """
    at_once = runtime(reading, wish, holders) if wish.scope.runtime else ()
    at_boot = await bootplan.make(host, reading, wish, loader) if wish.scope.boot else ()
    return Plan(wish, (*at_boot, *at_once))


def runtime(reading: Reading, wish: Wish, holders: Sequence[Holder]) -> tuple[Step, ...]:
    """The steps for the running kernel. Raises NotSupported and InUse. Pure."""
    status, driver = reading.status, reading.driver
    if wish.nested is None or status.nested is wish.nested:
        return ()
    if status.nested is Nesting.UNSUPPORTED and wish.nested is Nesting.OFF:
        return ()  # no guest can get it: that is what was asked for
    if status.obstacle is not Obstacle.NONE or driver is None or not driver.switch:
        raise obstacles.refusal(status)
    if status.driver_state is DriverState.BUILTIN:
        if wish.scope is Scope.BOTH:
            return ()  # the boot half says what can be done
        raise errors.NotSupported(
            f"{driver.name} is built into this kernel and cannot be reloaded. Only a reboot with "
            f"{bootplan.word(driver, wish.nested)} on the kernel command line changes it (scope boot)."
        )
    if reading.loading_disabled:
        raise obstacles.refused(Obstacle.MODULE_LOADING_DISABLED, driver.name)
    if status.users:
        raise errors.InUse(in_use(driver, status.users, holders))
    if status.driver_state is DriverState.UNLOADED:
        return (Load(driver, wish.nested, {}),)
    parameters = dict(status.parameters)
    parameters.pop(driver.switch, None)
    before = reading.switch or status.nested
    return (Unload(before, driver, parameters), Load(driver, wish.nested, parameters))


def in_use(driver: Driver, users: int, holders: Sequence[Holder]) -> str:
    """What InUse says: who holds the driver, as far as it can be known, and what to do."""
    if holders:
        names = ", ".join(_named(holder) for holder in holders)
        todo = "Wait for their end" if all(map(_is_our_own, holders)) else "Stop them"
        return f"{driver.name} is in use by {names}. {todo}, then try again; nothing was changed."
    return (
        f"{driver.name} is in use (reference count {users}), by no process that shows it: something in the "
        "kernel, or a process that has just ended. Try again; nothing was changed."
    )


def _named(holder: Holder) -> str:
    where = f" in {holder.unit}" if holder.unit else ""
    what = "nestd's own guest, which ends by itself: " if _is_our_own(holder) else ""
    return f"{what}{holder.comm} (pid {holder.pid}{where})"


def _is_our_own(holder: Holder) -> bool:
    """Whether it is what nestd starts for Verify or CheckCpu (guests/places.py), or for MeasureExit."""
    return holder.unit.startswith("nestd-guest-_") or holder.unit == "nestd.service"
