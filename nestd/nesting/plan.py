# SPDX-License-Identifier: LGPL-2.1-or-later
"""From what is and what is wished to the steps between them, or to a refusal. Pure.

The drop-in comes first: if udev loads the driver in the moment between unload and load, it then
gets the new value too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from nestd import errors
from nestd.model import Driver, DriverState, Holder, Nesting, Obstacle, Scope
from nestd.nesting import boot, dropin, obstacles
from nestd.nesting.status import Reading


class Wish(NamedTuple):
    """What Enable (ON) or Disable (OFF) was asked for."""

    nested: Nesting
    scope: Scope


class WriteDropIn(NamedTuple):
    """Replace nestd's drop-in. `before` is its text until now, None if there was none."""

    text: str
    before: str | None

    def __str__(self) -> str:
        option = self.text.strip().rpartition("\n")[2]
        return f"write {dropin.PATH}: {option}"


class Unload(NamedTuple):
    """Unload the driver alone. `before` is the value that its switch had, `parameters` are the others'.

    `before` stands first so that no Unload equals a Load: named tuples are compared by their values.
    """

    before: Nesting
    driver: Driver
    parameters: Mapping[str, str]

    def __str__(self) -> str:
        return f"unload {self.driver.name}"


class Load(NamedTuple):
    """Load the driver with its switch set, and with all in `keep` as it says: its parameters until now."""

    driver: Driver
    nested: Nesting
    keep: Mapping[str, str]

    def __str__(self) -> str:
        return f"load {self.driver.name} with {self.driver.switch}={argument(self.driver, self.nested)}"


Step = WriteDropIn | Unload | Load


class Plan(NamedTuple):
    """The steps in their order. No steps: it is so already."""

    wish: Wish
    steps: tuple[Step, ...]


def make(reading: Reading, wish: Wish, holders: Sequence[Holder]) -> Plan:
    """The plan for a wish.

    Raises NotSupported, BootloaderUnknown, Overridden or InUse, when nothing has been touched yet.
    `holders` name who uses the driver, for the refusal's text.
    """
    runtime = _runtime(reading, wish, holders) if wish.scope.runtime else ()
    at_boot = _boot(reading, wish) if wish.scope.boot else ()
    return Plan(wish, (*at_boot, *runtime))


def _runtime(reading: Reading, wish: Wish, holders: Sequence[Holder]) -> tuple[Step, ...]:
    status, driver = reading.status, reading.driver
    if status.nested is wish.nested:
        return ()
    if status.nested is Nesting.UNSUPPORTED and wish.nested is Nesting.OFF:
        return ()  # no guest can get it: that is what was asked for
    if status.obstacle is not Obstacle.NONE or driver is None or not driver.switch:
        raise _not_supported(reading)
    if status.driver_state is DriverState.BUILTIN:
        if wish.scope is Scope.BOTH:
            return ()  # the boot half says what can be done
        raise errors.NotSupported(
            f"{driver.name} is built into this kernel and cannot be reloaded. "
            f"Only a reboot with {_argument(driver, wish)} on the kernel command line changes it."
        )
    if reading.loading_disabled:
        raise _refused(Obstacle.MODULE_LOADING_DISABLED, driver.name)
    if status.users:
        raise errors.InUse(in_use(driver, status.users, holders))
    if status.driver_state is DriverState.UNLOADED:
        return (Load(driver, wish.nested, {}),)
    parameters = dict(status.parameters)
    parameters.pop(driver.switch, None)
    before = reading.switch or status.nested
    return (Unload(before, driver, parameters), Load(driver, wish.nested, parameters))


def _boot(reading: Reading, wish: Wish) -> tuple[Step, ...]:
    status, driver = reading.status, reading.driver
    if status.nested_at_boot is Nesting.UNSUPPORTED or driver is None:
        if wish.nested is Nesting.OFF:
            return ()
        raise _not_supported(reading)
    if status.driver_state is DriverState.BUILTIN:
        if status.nested_at_boot is wish.nested:
            return ()
        raise errors.BootloaderUnknown(
            f"{driver.name} is built into this kernel, so only the kernel command line decides, and nestd "
            f"does not know who writes it here. Add {_argument(driver, wish)} to it in the boot loader's "
            "configuration (GRUB: GRUB_CMDLINE_LINUX in /etc/default/grub, then update-grub) and reboot."
        )
    before = reading.configuration.dropin
    text = dropin.text(driver, wish.nested)
    outcome = boot.solve(reading.configuration.with_dropin(text), driver, status.driver_state)
    if outcome.nested is not wish.nested:
        raise errors.Overridden(
            f"The next boot would still give nested {outcome.nested}: {outcome.source} says so and wins over "
            f"{dropin.PATH}. Nothing was changed. Change it there, then try again."
        )
    return () if text == before else (WriteDropIn(text, before),)


def argument(driver: Driver, nested: Nesting) -> str:
    """The value that the switch is given."""
    return driver.on if nested is Nesting.ON else driver.off


def _argument(driver: Driver, wish: Wish) -> str:
    return f"{driver.name}.{driver.switch}={argument(driver, wish.nested)}"


def _not_supported(reading: Reading) -> errors.NotSupported:
    """The refusal for what is in the way; for an unknown kind of machine, that no switch is known."""
    if reading.status.obstacle:
        return errors.NotSupported(f"{reading.status.obstacle}: {obstacles.sentence(reading.status)}")
    return _refused(Obstacle.DRIVER_WITHOUT_NESTING, reading.status.driver)


def _refused(obstacle: Obstacle, driver: str) -> errors.NotSupported:
    return errors.NotSupported(f"{obstacle}: {obstacles.of(obstacle, driver)}")


def in_use(driver: Driver, users: int, holders: Sequence[Holder]) -> str:
    """What InUse says: who holds the driver, as far as it can be known, and what to do."""
    if holders:
        names = ", ".join(_named(holder) for holder in holders)
        return f"{driver.name} is in use by {names}. Stop them, then try again; nothing was changed."
    return (
        f"{driver.name} is in use (reference count {users}), by no process that shows it: something in the "
        "kernel, or a process that has just ended. Try again; nothing was changed."
    )


def _named(holder: Holder) -> str:
    where = f" in {holder.unit}" if holder.unit else ""
    return f"{holder.comm} (pid {holder.pid}{where})"
