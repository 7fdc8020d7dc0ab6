# SPDX-License-Identifier: LGPL-2.1-or-later
"""From a reading and a wish to steps or a refusal: pure, case by case."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from nestd import errors
from nestd.model import DriverState, Extension, Holder, Nesting, Obstacle, Policy, Scope, Status
from nestd.nesting import boot, drivers, dropin, plan
from nestd.nesting.status import Reading
from nestd.nesting.steps import Plan, Wish
from tests.nesting.machines import Machine
from tests.support import loop
from tests.support.tree import Tree

AMD = next(driver for driver in drivers.table("6.1.0") if driver.name == "kvm_amd")
ON, OFF, UNSUPPORTED = Nesting.ON, Nesting.OFF, Nesting.UNSUPPORTED


def reading(
    nested: Nesting = ON,
    state: DriverState = DriverState.LOADED,
    files: tuple[tuple[str, str], ...] = (),
    command_line: str = "quiet",
    obstacle: Obstacle = Obstacle.NONE,
    users: int = 0,
    loading_disabled: bool = False,
) -> Reading:
    """What was read on an AMD machine."""
    configuration = boot.Configuration(files, command_line)
    at_boot = boot.solve(configuration, AMD, state)
    status = Status(
        extension=Extension.SVM,
        driver="kvm_amd",
        driver_state=state,
        nested=nested,
        nested_at_boot=at_boot.nested,
        policy=Policy.UNMANAGED,
        reboot_required=False,
        obstacle=obstacle,
        virtualization="none",
        parameters={},
        kvm_api=12,
        guest_extension=nested is ON,
        users=users,
        boot_source=at_boot.source,
        overridden=at_boot.overridden,
        obstacle_meaning=f"what {obstacle} means on this machine",
        obstacle_remedy="what is to be done about it",
    )
    return Reading(status, AMD, configuration, loading_disabled)


def make(found: Reading, wish: Wish, holders: tuple[Holder, ...] = ()) -> Plan:
    """The plan, on a machine without a boot loader."""
    with TemporaryDirectory() as top:
        return loop.run(plan.make(Machine.of(Tree(Path(top))).host, found, wish, holders))


def words(found: Reading, nested: Nesting, scope: Scope = Scope.BOTH) -> list[str]:
    """The plan's steps, in words."""
    return [str(step) for step in make(found, Wish(nested, scope)).steps]


WRITE_ON = f"write {dropin.PATH}: options kvm_amd nested=1"
WRITE_OFF = f"write {dropin.PATH}: options kvm_amd nested=0"
UNLOAD, LOAD_ON, LOAD_OFF = "unload kvm_amd", "load kvm_amd with nested=1", "load kvm_amd with nested=0"
KEPT_ON = ((dropin.PATH, dropin.text(AMD, ON)),)


@pytest.mark.parametrize(
    ("found", "nested", "scope", "expected"),
    [
        (reading(ON), OFF, Scope.BOTH, [WRITE_OFF, UNLOAD, LOAD_OFF]),
        (reading(ON), OFF, Scope.RUNTIME, [UNLOAD, LOAD_OFF]),
        (reading(ON), OFF, Scope.BOOT, [WRITE_OFF]),
        (reading(OFF), ON, Scope.BOTH, [WRITE_ON, UNLOAD, LOAD_ON]),
        # on already, but nobody was told to keep it
        (reading(ON), ON, Scope.BOTH, [WRITE_ON]),
        (reading(ON, files=KEPT_ON), ON, Scope.BOTH, []),
        (reading(OFF, files=KEPT_ON), ON, Scope.BOTH, [UNLOAD, LOAD_ON]),
        (reading(ON), ON, Scope.RUNTIME, []),
        # nothing loaded: off already; on means to load it
        (reading(OFF, DriverState.UNLOADED), OFF, Scope.RUNTIME, []),
        (reading(OFF, DriverState.UNLOADED), ON, Scope.RUNTIME, [LOAD_ON]),
        # off was asked for, and no guest can get it here
        (reading(UNSUPPORTED, DriverState.MISSING, obstacle=Obstacle.DRIVER_MISSING), OFF, Scope.BOTH, []),
        # in use matters only to what reloads
        (reading(ON, users=3), OFF, Scope.BOOT, [WRITE_OFF]),
        (reading(ON, users=3), ON, Scope.RUNTIME, []),
        # the command line agrees, or says nothing
        (reading(ON, command_line="kvm_amd.nested=0"), OFF, Scope.BOOT, [WRITE_OFF]),
        # modules are locked: only the boot half can be done
        (reading(ON, loading_disabled=True), OFF, Scope.BOOT, [WRITE_OFF]),
    ],
)
def test_steps(found: Reading, nested: Nesting, scope: Scope, expected: list[str]) -> None:
    assert words(found, nested, scope) == expected


@pytest.mark.parametrize(
    ("found", "nested", "scope", "error", "says"),
    [
        (reading(ON, users=2), OFF, Scope.BOTH, errors.InUse, "reference count 2"),
        (
            reading(UNSUPPORTED, DriverState.MISSING, obstacle=Obstacle.DRIVER_MISSING),
            ON,
            Scope.BOTH,
            errors.NotSupported,
            "driver-missing: ",
        ),
        (
            reading(OFF, obstacle=Obstacle.MODULE_LOADING_DISABLED),
            ON,
            Scope.RUNTIME,
            errors.NotSupported,
            "module-loading-disabled: ",
        ),
        (
            reading(ON, loading_disabled=True),
            OFF,
            Scope.BOTH,
            errors.NotSupported,
            "module-loading-disabled: ",
        ),
        (reading(ON, DriverState.BUILTIN), OFF, Scope.BOTH, errors.BootloaderUnknown, "kvm_amd.nested=0"),
        (reading(ON, DriverState.BUILTIN), OFF, Scope.BOOT, errors.BootloaderUnknown, "kvm_amd.nested=0"),
        (reading(ON, DriverState.BUILTIN), OFF, Scope.RUNTIME, errors.NotSupported, "kvm_amd.nested=0"),
        (
            reading(ON, command_line="kvm-amd.nested=1"),
            OFF,
            Scope.BOTH,
            errors.Overridden,
            "kernel command line",
        ),
        (
            reading(ON, files=(("/etc/modprobe.d/zzz.conf", "# no\noptions kvm_amd nested=1\n"),)),
            OFF,
            Scope.BOOT,
            errors.Overridden,
            "/etc/modprobe.d/zzz.conf:2",
        ),
    ],
)
def test_refusals(
    found: Reading, nested: Nesting, scope: Scope, error: type[errors.BusError], says: str
) -> None:
    with pytest.raises(error, match=says):
        make(found, Wish(nested, scope))


def test_a_refusal_names_the_holders() -> None:
    holders = (Holder(812, "qemu-system-x86", "machine-qemu.scope", "web"), Holder(9, "x", "", ""))
    with pytest.raises(errors.InUse, match=r"qemu-system-x86 \(pid 812 in machine-qemu.scope\), x \(pid 9\)"):
        make(reading(ON, users=2), Wish(OFF, Scope.BOTH), holders)


def test_what_nestd_itself_holds_it_with_ends_by_itself() -> None:
    own = (
        Holder(812, "qemu-system-x86", "nestd-guest-_verify-1a2b3c4d.service", "_verify-1a2b3c4d"),
        Holder(9, "python3", "nestd.service", ""),
    )
    words = (
        r"own guest, which ends by itself: qemu-system-x86 \(pid 812 in nestd-guest-_verify-1a2b3c4d\.service"
        r".*itself: python3 \(pid 9 in nestd.service\)\. Wait for their end, then"
    )
    with pytest.raises(errors.InUse, match=words):
        make(reading(ON, users=2), Wish(OFF, Scope.BOTH), own)
    with pytest.raises(errors.InUse, match="Stop them, then"):
        make(reading(ON, users=2), Wish(OFF, Scope.BOTH), (*own, Holder(5, "vmm", "", "")))


def test_every_obstacle_has_its_remedy() -> None:
    for obstacle in Obstacle:
        if obstacle is Obstacle.NONE:
            continue
        found = reading(UNSUPPORTED, obstacle=obstacle)
        with pytest.raises(errors.NotSupported, match=f"^{obstacle}: .{{40}}"):
            make(found, Wish(ON, Scope.RUNTIME))


def test_a_plan_is_a_value() -> None:
    made = make(reading(ON), Wish(OFF, Scope.BOTH))
    with pytest.raises(AttributeError):
        made.steps = ()  # type: ignore[misc]
