# SPDX-License-Identifier: LGPL-2.1-or-later
"""The truth about this machine: read, never remembered.

Whether a guest can get the extension is asked of KVM itself (KVM_GET_SUPPORTED_CPUID); the
driver's parameter answers only where KVM cannot be asked.
"""

from __future__ import annotations

from dataclasses import dataclass

from nestd.host.machine import Host
from nestd.model import (
    BootSetting,
    Driver,
    DriverState,
    Extension,
    KvmAnswer,
    Nesting,
    Obstacle,
    Status,
)
from nestd.nesting import boot, drivers, dropin
from nestd.text import cpuinfo

KVM_API_VERSION = 12
_LIVE = frozenset({DriverState.LOADED, DriverState.BUILTIN})
_NOT_ASKED = KvmAnswer(-1, 0, frozenset())


@dataclass(frozen=True, slots=True)
class Reading:
    """A status together with what a plan needs to know besides it."""

    status: Status
    driver: Driver | None
    configuration: boot.Configuration
    loading_disabled: bool


@dataclass(frozen=True, slots=True)
class _Running:
    """What the running kernel says of the driver in charge."""

    driver: Driver | None
    state: DriverState
    parameters: dict[str, str]
    loading_disabled: bool
    kvm: KvmAnswer

    @property
    def live(self) -> bool:
        return self.state in _LIVE

    @property
    def switch(self) -> Nesting | None:
        """What the parameter shows; None where there is none."""
        if self.driver is None or not self.driver.switch:
            return None
        value = self.parameters.get(self.driver.switch)
        return None if value is None else drivers.read_switch(value)


def read(host: Host, virtualization: str) -> Reading:
    """Ask the kernel and the configuration everything, once. OSError where /proc or /sys fails.

    `virtualization` does not change while the machine runs, so it is handed in.
    """
    extensions = cpuinfo.extensions(host.root.read("/proc/cpuinfo") or "")
    present = frozenset(host.root.names("/sys/module"))
    driver = drivers.choose(extensions, host.release, present, host.kmod.state)
    state = host.kmod.state(driver.name) if driver else DriverState.NONE
    running = _Running(
        driver,
        state,
        host.kmod.parameters(driver.name) if driver and state in _LIVE else {},
        host.kmod.loading_disabled(),
        # With no driver behind it, opening a static /dev/kvm would make the kernel load kvm.
        host.kvm.ask() if state in _LIVE else _NOT_ASKED,
    )
    configuration = boot.Configuration.read(host.root)
    at_boot = boot.solve(configuration, driver if extensions else None, state)
    extension = _extension(extensions, driver)
    users = host.kmod.refcnt(driver.name) if driver else 0
    status = _status(running, extension, at_boot, configuration, virtualization, users)
    return Reading(status, driver, configuration, running.loading_disabled)


def _extension(extensions: frozenset[Extension], driver: Driver | None) -> Extension:
    if driver and driver.extension in extensions:
        return driver.extension
    return min(extensions, default=Extension.NONE)


def _status(
    running: _Running,
    extension: Extension,
    at_boot: BootSetting,
    configuration: boot.Configuration,
    virtualization: str,
    users: int,
) -> Status:
    nested = _nested(running, extension)
    settles_by_reload = (
        running.state in {DriverState.LOADED, DriverState.UNLOADED} and not running.loading_disabled
    )
    return Status(
        extension=extension,
        driver=running.driver.name if running.driver else "",
        driver_state=running.state,
        nested=nested,
        nested_at_boot=at_boot.nested,
        policy=dropin.policy(configuration.dropin, running.driver),
        reboot_required=nested is not at_boot.nested and not settles_by_reload,
        obstacle=_obstacle(running, extension, nested),
        virtualization=virtualization,
        parameters=running.parameters,
        kvm_api=running.kvm.api,
        guest_extension=extension is not Extension.NONE and extension in running.kvm.extensions,
        users=users,
        boot_source=at_boot.source,
        overridden=at_boot.overridden,
    )


def _nested(running: _Running, extension: Extension) -> Nesting:
    if extension is Extension.NONE or running.state in {DriverState.NONE, DriverState.MISSING}:
        return Nesting.UNSUPPORTED
    if running.state is DriverState.UNLOADED:
        return Nesting.OFF
    if running.kvm.api == KVM_API_VERSION and extension in {Extension.VMX, Extension.SVM}:
        offered = extension in running.kvm.extensions
        if running.switch is None and not offered:
            return Nesting.UNSUPPORTED
        return Nesting.ON if offered else Nesting.OFF
    return running.switch or Nesting.UNSUPPORTED


def _obstacle(running: _Running, extension: Extension, nested: Nesting) -> Obstacle:
    """The first thing that is in the way."""
    live, driver = running.live, running.driver
    frozen = running.loading_disabled and running.state is not DriverState.BUILTIN
    in_the_way = (
        (Obstacle.DRIVER_WITHOUT_NESTING, live and driver is not None and not driver.switch),
        (Obstacle.NO_EXTENSION, extension is Extension.NONE),
        (Obstacle.DRIVER_MISSING, running.state in {DriverState.NONE, DriverState.MISSING}),
        (Obstacle.KVM_UNUSABLE, live and running.kvm.api != KVM_API_VERSION),
        (Obstacle.DRIVER_WITHOUT_NESTING, live and running.switch is None),
        (Obstacle.MODULE_LOADING_DISABLED, frozen and nested is Nesting.OFF),
    )
    return next((obstacle for obstacle, there in in_the_way if there), Obstacle.NONE)
