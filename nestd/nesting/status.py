# SPDX-License-Identifier: LGPL-2.1-or-later
"""The truth about this machine: read, never remembered.

Whether a guest can get the extension is asked of KVM itself (KVM_GET_SUPPORTED_CPUID); the
driver's parameter answers only where KVM cannot be asked.
"""

from typing import NamedTuple

from nestd import errors
from nestd.host import kvm
from nestd.host.machine import Host
from nestd.model import (
    Driver,
    DriverState,
    Extension,
    KvmAnswer,
    Nesting,
    Policy,
    Status,
)
from nestd.nesting import boot, drivers, dropin, obstacles
from nestd.nesting.circumstances import Circumstances
from nestd.text import cmdline

# Where KVM itself says whether a guest can get the extension (host/kvm.py). On s390x it does not.
_ASKED = frozenset({Extension.VMX, Extension.SVM, Extension.EL2, Extension.HV})
KVM_API_VERSION = kvm.API_VERSION
_NOT_ASKED = KvmAnswer(-1, 0, frozenset())


class Reading(NamedTuple):
    """A status together with what a plan, or Diagnose, needs to know besides it.

    `switch` is what the driver's parameter shows, None where there is none; `kvm` is what KVM
    answered; `flags` are the CPU's.
    """

    status: Status
    driver: Driver | None
    configuration: boot.Configuration
    loading_disabled: bool
    switch: Nesting | None = None
    kvm: KvmAnswer = _NOT_ASKED
    flags: frozenset[str] = frozenset()


class _Running(NamedTuple):
    """What the running kernel says of the driver in charge."""

    driver: Driver | None
    state: DriverState
    parameters: dict[str, str]
    loading_disabled: bool
    kvm: KvmAnswer

    @property
    def reloadable(self) -> bool:
        """Whether loading the driver anew, without a reboot, gives what is configured."""
        return self.state in {DriverState.LOADED, DriverState.UNLOADED} and not self.loading_disabled

    @property
    def switch(self) -> Nesting | None:
        """What the parameter shows; None where there is none."""
        if self.driver is None or not self.driver.switch:
            return None
        value = self.parameters.get(self.driver.switch)
        return None if value is None else drivers.switch_of(self.driver, value)


def read(host: Host, circumstances: Circumstances) -> Reading:
    """Ask the kernel and the configuration everything, once. OSError where /proc or /sys fails."""
    seen = drivers.in_charge(host)
    driver, state = seen.driver, seen.state
    configuration = boot.Configuration.read(host.root)
    running = _Running(
        driver,
        state,
        _parameters(host, driver, configuration) if driver and seen.live else {},
        host.kmod.loading_disabled(),
        # With no driver behind it, opening a static /dev/kvm would make the kernel load kvm.
        host.kvm.ask() if seen.live else _NOT_ASKED,
    )
    extension = _extension(running, seen.extensions)
    at_boot = boot.solve(configuration, driver if extension else None, state)
    nested = _nested(running, extension)
    why = obstacles.find(_facts(host, running, extension, nested, circumstances, configuration))
    status = Status(
        extension=extension,
        driver=driver.name if driver else "",
        driver_state=state,
        nested=nested,
        nested_at_boot=at_boot.nested,
        policy=_policy(host, configuration, driver, state),
        reboot_required=nested is not at_boot.nested and not running.reloadable,
        obstacle=why.obstacle,
        virtualization=circumstances.virtualization,
        parameters=running.parameters,
        kvm_api=running.kvm.api,
        guest_extension=extension is not Extension.NONE and extension in running.kvm.extensions,
        users=host.kmod.refcnt(driver.name) if driver else 0,
        boot_source=at_boot.source,
        overridden=at_boot.overridden,
        obstacle_meaning=why.meaning,
        obstacle_remedy=why.remedy,
    )
    return Reading(
        status, driver, configuration, running.loading_disabled, running.switch, running.kvm, seen.flags
    )


def _policy(
    host: Host, configuration: boot.Configuration, driver: Driver | None, state: DriverState
) -> Policy:
    """What nestd was told to keep; for a driver that is built in the drop-in does not count."""
    if state is DriverState.BUILTIN:
        from nestd.nesting import own  # noqa: PLC0415 -- few drivers are built in

        try:
            told = own.read(host.root).nested
        except errors.Malformed:
            return Policy.UNMANAGED  # a change says what is to be done about it
        return Policy(told.value) if told else Policy.UNMANAGED
    return dropin.policy(configuration.dropin, driver)


def _parameters(host: Host, driver: Driver, configuration: boot.Configuration) -> dict[str, str]:
    if driver.extension is not Extension.EL2:
        return host.kmod.parameters(driver.name)
    # An argument of the kernel itself has no folder in /sys; without it the mode is the default one.
    argument = cmdline.parameter(cmdline.parse(configuration.command_line), driver.name, driver.switch)
    return {driver.switch: (argument.value if argument else "") or ""}


def _extension(running: _Running, shown: frozenset[Extension]) -> Extension:
    driver = running.driver
    if driver and driver.extension in shown:
        return driver.extension
    if driver and driver.extension is Extension.EL2 and running.kvm.api == KVM_API_VERSION:
        return Extension.EL2
    return min(shown, default=Extension.NONE)


def _facts(
    host: Host,
    running: _Running,
    extension: Extension,
    nested: Nesting,
    circumstances: Circumstances,
    configuration: boot.Configuration,
) -> obstacles.Facts:
    driver, barred, held_by = running.driver, "", ""
    if driver is not None and running.state is DriverState.UNLOADED:
        from nestd.host.others import others  # noqa: PLC0415 -- only where no driver runs

        barred = obstacles.barred(configuration, driver)
        held_by = next((other.name for other in others(host.root, host.kmod) if other.users), "")
    return obstacles.Facts(
        extension,
        driver,
        running.state,
        running.switch,
        nested,
        running.loading_disabled,
        running.kvm,
        circumstances,
        barred,
        held_by,
    )


def _nested(running: _Running, extension: Extension) -> Nesting:
    if extension is Extension.NONE or running.state in {DriverState.NONE, DriverState.MISSING}:
        return Nesting.UNSUPPORTED
    if running.state is DriverState.UNLOADED:
        return Nesting.OFF
    if running.kvm.api == KVM_API_VERSION and extension in _ASKED:
        offered = extension in running.kvm.extensions
        if running.switch is None and not offered:
            return Nesting.UNSUPPORTED
        return Nesting.ON if offered else Nesting.OFF
    return running.switch or Nesting.UNSUPPORTED
