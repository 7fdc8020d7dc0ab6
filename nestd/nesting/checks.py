# SPDX-License-Identifier: LGPL-2.1-or-later
"""What Diagnose says of the machine: pure, from what was read to rows.

A row that makes no sense on this machine is left out: no parameters without a driver. The ids are
documented in nestd(8), and stable.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from nestd.host.kvm import API_VERSION
from nestd.host.others import Other
from nestd.model import Check, DriverState, Extension, Holder, Nesting, Obstacle, Policy, Verdict
from nestd.nesting import drivers, hazards, hypervisors, obstacles, performance
from nestd.nesting.circumstances import Circumstances
from nestd.nesting.status import Reading


class Evidence(NamedTuple):
    """What only Diagnose looks at.

    `enforcement` says who makes the kernel refuse unsigned modules, `hpage` is kvm's parameter on s390x;
    each is
    empty where there is none.
    """

    holders: tuple[Holder, ...] = ()
    others: tuple[Other, ...] = ()
    enforcement: str = ""
    vmx_flags: frozenset[str] = frozenset()
    hpage: str = ""
    release: str = ""


def checks(reading: Reading, circumstances: Circumstances, evidence: Evidence) -> tuple[Check, ...]:
    """Every row, from the hardware up."""
    live = reading.status.driver_state in drivers.LIVE
    return (
        *_hardware(reading, circumstances),
        _driver(reading),
        *_modules(reading, circumstances, evidence),
        *(_other(other, reading) for other in evidence.others),
        *((_device(reading), *_running(reading), *_holders(reading, evidence)) if live else ()),
        *_off(reading, evidence),
        *performance.checks(reading, evidence.vmx_flags),
        *(hazards.checks(reading, evidence.hpage, evidence.release) if live else ()),
    )


def _in_the_way(identity: str, why: obstacles.Why) -> Check:
    return Check(identity, Verdict.FAIL, _sentence(why.meaning), _sentence(why.remedy))


def _sentence(clause: str) -> str:
    return f"{clause[:1].upper()}{clause[1:]}."


def _why(reading: Reading) -> obstacles.Why:
    status = reading.status
    return obstacles.Why(status.obstacle, status.obstacle_meaning, status.obstacle_remedy)


def _hardware(reading: Reading, told: Circumstances) -> Iterator[Check]:
    status, why = reading.status, _why(reading)
    if status.extension is not Extension.NONE:
        yield Check.passed("extension", f"The CPU has {status.extension}.")
    elif why.obstacle is Obstacle.NO_EXTENSION:
        yield _in_the_way("extension", why)
    else:
        yield Check(
            "extension",
            Verdict.FAIL,
            "The kernel shows no virtualization extension.",
            "See what the other failures say about the reason.",
        )
    if why.obstacle is Obstacle.FIRMWARE_DISABLED:
        yield _in_the_way("firmware", why)
    elif status.extension is Extension.SVM and status.driver_state not in drivers.LIVE:
        pass  # before Linux 6.7 svm is shown all the same
    elif status.extension is not Extension.NONE:
        yield Check.passed("firmware", "The firmware leaves the extension on.")
    if why.obstacle is Obstacle.HIDDEN_BY_HYPERVISOR:
        yield _in_the_way("hypervisor", why)
    elif told.hypervisor:
        yield _in_the_way("hypervisor", obstacles.hidden(told.hypervisor))
    elif told.virtualization == "none":
        yield Check.passed("hypervisor", "This machine runs on bare metal.")
    elif told.virtualization and status.extension is not Extension.NONE:
        name = hypervisors.name(told.virtualization)
        yield Check.passed("hypervisor", f"This machine runs in {name}, which passes the extension on.")


def _driver(reading: Reading) -> Check:
    status, why = reading.status, _why(reading)
    name, state = status.driver, status.driver_state
    if why.obstacle in {Obstacle.DRIVER_MISSING, Obstacle.DRIVER_WITHOUT_NESTING}:
        return _in_the_way("driver", why)
    if state is DriverState.LOADED:
        return Check.passed("driver", f"{name} is loaded.")
    if state is DriverState.BUILTIN:
        return Check.passed(
            "driver", f"{name} is built into this kernel: only a reboot changes its parameters."
        )
    if state is DriverState.UNLOADED:
        return Check(
            "driver",
            Verdict.WARN,
            f"{name} is not loaded, so there are no guests with KVM at all.",
            f"Load it: `nestctl enable`, or `modprobe {name}`.",
        )
    return Check(
        "driver",
        Verdict.FAIL,
        f"The running kernel has no module {name}." if name else "There is no KVM driver for this machine.",
        "See what the other failures say about the extension: without it no driver helps.",
    )


def _modules(reading: Reading, told: Circumstances, evidence: Evidence) -> Iterator[Check]:
    status, why = reading.status, _why(reading)
    if status.driver_state not in {DriverState.LOADED, DriverState.UNLOADED}:
        return
    if not reading.loading_disabled:
        yield Check.passed("module-loading", "Modules can be loaded and unloaded.")
    elif why.obstacle is Obstacle.MODULE_LOADING_DISABLED:
        yield _in_the_way("module-loading", why)
    else:
        yield Check(
            "module-loading",
            Verdict.WARN,
            "This kernel loads and unloads no more modules (kernel.modules_disabled is 1): nothing changes "
            "before the next boot.",
            "If it has to, set it for that (`nestctl enable --boot`, `nestctl disable --boot`) and reboot.",
        )
    if told.signature and why.obstacle is Obstacle.MODULE_SIGNATURE:
        yield _in_the_way("module-signature", why)
    elif not evidence.enforcement:
        yield Check.passed("module-signature", "This kernel takes modules without a signature, too.")
    elif status.driver_state is DriverState.LOADED:
        yield Check.passed(
            "module-signature",
            f"The kernel took {status.driver}, though it is strict: {evidence.enforcement}.",
        )
    elif not told.signature:
        yield Check.passed(
            "module-signature",
            f"Nothing shows that {status.driver} lacks the signature that it needs ({evidence.enforcement}).",
        )


def _other(other: Other, reading: Reading) -> Check:
    identity = "other-hypervisor"
    if not other.users:
        return Check(
            identity,
            Verdict.WARN,
            f"{other.name} is there beside KVM (module {other.module}): only one of them can run guests at a "
            "time.",
            f"If KVM's guests do not start, or {other.name}'s, stop those of the other.",
        )
    why = obstacles.held(other.name)
    verdict = Verdict.WARN if reading.status.users else Verdict.FAIL
    return Check(identity, verdict, _sentence(why.meaning), _sentence(why.remedy))


def _device(reading: Reading) -> Check:
    if reading.kvm.api == API_VERSION:
        return Check.passed("kvm-device", f"/dev/kvm answers (version {reading.kvm.api} of its interface).")
    return _in_the_way("kvm-device", obstacles.unusable(reading.kvm, reading.status.driver))


def _running(reading: Reading) -> Iterator[Check]:
    """Whether the parameter and KVM's own word agree."""
    status, switch = reading.status, reading.switch
    if status.extension is Extension.NONE or reading.kvm.api != API_VERSION:
        return
    driver, extension = status.driver, status.extension
    told = f"{driver}'s parameter says {switch}" if switch else f"{driver} has no nested switch"
    offered = "offers" if status.guest_extension else "does not offer"
    if extension is Extension.SIE:
        yield Check.passed(
            "running", f"Nesting is {status.nested}: {told} (KVM cannot be asked for it on s390x)."
        )
    elif (switch is Nesting.ON) is status.guest_extension:
        yield Check.passed(
            "running", f"Nesting is {status.nested}: {told}, and KVM {offered} {extension} to guests."
        )
    else:
        yield Check(
            "running",
            Verdict.FAIL if switch is not Nesting.ON else Verdict.WARN,
            f"{told}, and yet KVM {offered} {extension} to guests. KVM's word counts: nesting is "
            f"{status.nested}.",
            f"Load {driver} again (`nestctl disable --runtime`, `nestctl enable --runtime`); if that does "
            "not help, read what the kernel says: journalctl -k -g kvm.",
        )


def _named(holders: tuple[Holder, ...]) -> str:
    found = []
    for one in holders:
        machine = (f"machine {one.machine}",) if one.machine else ()
        unit = (one.unit,) if one.unit else ()
        found.append(f"{one.comm} ({', '.join((f'pid {one.pid}', *machine, *unit))})")
    return ", ".join(found)


def _holders(reading: Reading, evidence: Evidence) -> Iterator[Check]:
    status = reading.status
    if evidence.holders:
        yield Check.passed(
            "holders",
            f"{status.driver} is in use, so it cannot be reloaded now, by {_named(evidence.holders)}.",
        )
    elif status.users:
        yield Check(
            "holders",
            Verdict.WARN,
            f"{status.driver} is in use (reference count {status.users}) by no process that shows it.",
            "Look again: a process may have just ended. If it stays, a module holds it: lsmod tells which.",
        )
    else:
        yield Check.passed("holders", f"Nobody uses {status.driver}.")


def _off(reading: Reading, evidence: Evidence) -> Iterator[Check]:
    status = reading.status
    if status.policy is not Policy.OFF:
        return
    if status.nested is not Nesting.ON:
        known = "KVM itself does not offer it" if reading.kvm.api == API_VERSION else "no KVM runs"
        if status.extension is Extension.SIE:
            known = "kvm's parameter says so"
        yield Check.passed("off", f"Nesting is to be off, and no guest can get it: {known}.")
        return
    having = f" These may have it: {_named(evidence.holders)}." if evidence.holders else ""
    yield Check(
        "off",
        Verdict.FAIL,
        f"nestd was told to keep nesting off, and KVM still offers {status.extension} to guests.{having}",
        "Stop these guests, if there are any, then run `nestctl disable`; where the driver is built in, "
        "reboot.",
    )
