# SPDX-License-Identifier: LGPL-2.1-or-later
"""The choice of the driver, and what the values of its switch mean."""

from __future__ import annotations

import pytest

from nestd.model import DriverState, Extension, Nesting
from nestd.nesting import drivers

L, B, U, M = DriverState.LOADED, DriverState.BUILTIN, DriverState.UNLOADED, DriverState.MISSING


@pytest.mark.parametrize(
    ("extensions", "modules", "chosen"),
    [
        ({Extension.SVM}, {"kvm": L, "kvm_amd": L}, "kvm_amd"),
        ({Extension.SVM}, {"kvm_amd": U, "kvm_intel": U}, "kvm_amd"),
        ({Extension.VMX}, {"kvm_amd": U, "kvm_intel": U}, "kvm_intel"),
        # both built in: kvm_intel is there, with nested=Y, on an AMD CPU
        ({Extension.SVM}, {"kvm": B, "kvm_amd": B, "kvm_intel": B}, "kvm_amd"),
        ({Extension.VMX}, {"kvm_intel": M}, "kvm_intel"),
        # no flag, or the flag's driver not there: what runs is what counts
        (set(), {"kvm": B, "kvm_pvm": B}, "kvm_pvm"),
        ({Extension.VMX}, {"kvm": L, "kvm_intel": U, "kvm_pvm": L}, "kvm_pvm"),
        ({Extension.VMX}, {"kvm": L, "kvm_intel": L, "kvm_pvm": L}, "kvm_intel"),
        (set(), {"kvm": B, "kvm_amd": B, "kvm_intel": B}, None),
        (set(), {}, None),
        ({Extension.SIE}, {"kvm": L}, "kvm"),
    ],
)
def test_choice(extensions: set[Extension], modules: dict[str, DriverState], chosen: str | None) -> None:
    present = {name for name, state in modules.items() if state in {L, B}}
    driver = drivers.choose(extensions, "6.1.0-44-cloud-amd64", present, lambda name: modules.get(name, M))
    assert (driver.name if driver else None) == chosen


def test_a_foreign_driver_has_no_switch() -> None:
    driver = drivers.choose(set(), "6.18.0", {"kvm", "kvm_pvm"}, lambda _: B)
    assert driver is not None
    assert (driver.switch, driver.extension) == ("", Extension.NONE)


@pytest.mark.parametrize(
    ("release", "default"),
    [
        ("4.19.0-27-amd64", Nesting.OFF),
        ("4.20.0", Nesting.ON),
        ("3.10.0-1160.el7", Nesting.OFF),
        ("6.1.0-44-cloud-amd64", Nesting.ON),
        ("nonsense", Nesting.OFF),
    ],
)
def test_intels_default_depends_on_the_kernel(release: str, default: Nesting) -> None:
    intel = next(driver for driver in drivers.table(release) if driver.name == "kvm_intel")
    assert intel.default is default


@pytest.mark.parametrize(
    ("value", "meaning"),
    [
        *((on, Nesting.ON) for on in ("1", "Y", "y", "2", "-1", "0x1")),
        *((off, Nesting.OFF) for off in ("0", "N", "n", "00")),
        *((refused, None) for refused in ("", "on", "yes", "maybe", "1 0")),
    ],
)
def test_values_of_the_switch(value: str, meaning: Nesting | None) -> None:
    assert drivers.read_switch(value) is meaning
