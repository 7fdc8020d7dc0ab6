# SPDX-License-Identifier: LGPL-2.1-or-later
"""The table of KVM drivers, and the choice of the one in charge.

Sources: arch/x86/kvm/vmx/vmx.c and arch/x86/kvm/svm/svm.c (`nested`), arch/s390/kvm/kvm-s390.c,
arch/powerpc/kvm/book3s_hv.c, arch/arm64/kvm/arm.c (`kvm-arm.mode`); kvm_intel's default is on since
Linux 4.20 (1e58e5e59148).
"""

import re
from collections.abc import Callable, Set
from typing import NamedTuple

from nestd.host.machine import Host
from nestd.model import Driver, DriverState, Extension, Nesting
from nestd.text import cpuinfo

LIVE = frozenset({DriverState.LOADED, DriverState.BUILTIN})
_INTEL_DEFAULT_ON = (4, 20)
_ARM = "kvm_arm"
# Names below /sys/module that begin like a driver's and are none: what all drivers stand on.
_NOT_DRIVERS = frozenset({"kvm"})


def table(release: str) -> tuple[Driver, ...]:
    """Every driver with a nested switch, for the kernel whose `uname -r` is `release`."""
    intel = Nesting.ON if version(release) >= _INTEL_DEFAULT_ON else Nesting.OFF
    # kvm_amd's switch is an int up to 6.1 at least, which takes 0 and 1 but not Y and N; the
    # bool of the others takes 0 and 1 as well: so these two are what is written everywhere.
    return (
        Driver("kvm_intel", Extension.VMX, "nested", "1", "0", intel),
        Driver("kvm_amd", Extension.SVM, "nested", "1", "0", Nesting.ON),
        Driver("kvm", Extension.SIE, "nested", "1", "0", Nesting.OFF),
        Driver("kvm_hv", Extension.HV, "nested", "1", "0", Nesting.ON),
        # Part of the kernel, and set on its command line alone: kvm-arm.mode=nested.
        Driver(_ARM, Extension.EL2, "mode", "nested", "", Nesting.OFF),
    )


class InCharge(NamedTuple):
    """What CPU and kernel say before anything is asked: what the CPU shows, whose driver it is, where that
    is.

    `flags` are the CPU's own.
    """

    extensions: frozenset[Extension]
    driver: Driver | None
    state: DriverState
    flags: frozenset[str]

    @property
    def live(self) -> bool:
        """Whether the driver runs."""
        return self.state in LIVE


def in_charge(host: Host) -> InCharge:
    """Who is in charge on this machine. OSError where /proc or /sys fails."""
    text = host.root.read("/proc/cpuinfo") or ""
    present = frozenset(host.root.names("/sys/module"))
    if cpuinfo.is_arm64(text):
        # KVM is never a module there, and whether the CPU has EL2 only KVM tells.
        driver = next(driver for driver in table(host.release) if driver.name == _ARM)
        state = DriverState.BUILTIN if "kvm" in present else DriverState.MISSING
        return InCharge(frozenset(), driver, state, cpuinfo.flags(text))
    extensions = cpuinfo.extensions(text)
    if cpuinfo.is_pseries(text) and host.kmod.state("kvm_hv") in LIVE:
        extensions |= {Extension.HV}
    chosen = choose(extensions, host.release, present, host.kmod.state)
    state = host.kmod.state(chosen.name) if chosen else DriverState.NONE
    return InCharge(extensions, chosen, state, cpuinfo.flags(text))


def version(release: str) -> tuple[int, int]:
    """The kernel's version from what `uname -r` says; (0, 0) where it says none."""
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def choose(
    extensions: Set[Extension],
    release: str,
    present: Set[str],
    state: Callable[[str], DriverState],
) -> Driver | None:
    """The driver in charge, or the one that would be; None if none can be named.

    By the CPU's flag first; then, if that driver is not live, by what else is there. A driver of the
    table is never chosen because it is there: with both x86 drivers built in, kvm_intel is there
    on an AMD CPU too. A driver that the table does not know has no switch that could be trusted.

    `present` are the names under /sys/module, `state` tells a module's state.
    """
    known = table(release)
    by_flag = next((driver for driver in known if driver.extension in extensions), None)
    if by_flag and state(by_flag.name) in LIVE:
        return by_flag
    names = {driver.name for driver in known} | _NOT_DRIVERS
    foreign = sorted(name for name in present if name.startswith("kvm_") and name not in names)
    if foreign:
        return Driver(foreign[0], Extension.NONE, "", "", "", Nesting.UNSUPPORTED)
    return by_flag


def switch_of(driver: Driver, value: str) -> Nesting | None:
    """What `value` means to the switch of `driver`; None: it would not take it."""
    if driver.extension is Extension.EL2:
        return Nesting.ON if value == driver.on else Nesting.OFF
    return read_switch(value)


def read_switch(value: str) -> Nesting | None:
    """What a value of the switch means, as the kernel shows it or as somebody wrote it.

    A bool shows Y or N; kvm_amd's int shows whatever it was given (2, -1), and all but 0 is on.
    None: the kernel would not take this as a value.
    """
    if value in {"Y", "y"}:
        return Nesting.ON
    if value in {"N", "n"}:
        return Nesting.OFF
    try:
        return Nesting.ON if int(value, 0) else Nesting.OFF
    except ValueError:
        return None
