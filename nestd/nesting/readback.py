# SPDX-License-Identifier: LGPL-2.1-or-later
"""What came of a change: read anew, and held against what was wished."""

from __future__ import annotations

from collections.abc import Callable

from nestd.host.machine import Host
from nestd.model import Nesting, Policy
from nestd.nesting import drivers, images, reload, steps
from nestd.nesting.status import KVM_API_VERSION, Reading


async def read_back(host: Host, todo: steps.Plan, read: Callable[[], Reading]) -> Reading:
    """The reading, if it shows what was wished. StepFailed: it does not."""
    reading = read()
    if any(isinstance(step, steps.Run) for step in todo.steps) and reading.driver is not None:
        await images.learn(host, reading.configuration, reading.driver)
        reading = read()
    return _confirmed(todo, reading)


def _confirmed(todo: steps.Plan, reading: Reading) -> Reading:
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
    if wish.nested is None:
        if status.policy is not Policy.UNMANAGED:
            raise reload.StepFailed(f"nestd's own settings are still there: they say {status.policy}")
        return reading
    if wish.scope.boot and status.nested_at_boot not in {wish.nested, Nesting.UNSUPPORTED}:
        raise reload.StepFailed(f"{status.boot_source} says that the next boot gives {status.nested_at_boot}")
    return reading


def _silent(reading: Reading) -> bool:
    """Whether a driver is there, and KVM did not answer."""
    live = reading.status.driver_state in drivers.LIVE
    return live and reading.status.kvm_api != KVM_API_VERSION
