# SPDX-License-Identifier: LGPL-2.1-or-later
"""The driver's parameters that make nested guests fast or slow, where the CPU could do better.

Sources: arch/x86/kvm/vmx/vmx.c and arch/x86/kvm/svm/svm.c; the CPU's features by the names of /proc/cpuinfo
(`flags`; for VMX also `vmx flags`, arch/x86/include/asm/vmxfeatures.h).
"""

from __future__ import annotations

from typing import NamedTuple

from nestd.model import Check, Nesting, Verdict
from nestd.nesting.drivers import read_switch
from nestd.nesting.status import Reading


class _Aid(NamedTuple):
    """A parameter, the CPU's flag without which it means nothing, and what its being off costs."""

    parameter: str
    flag: str
    cost: str


_AIDS = {
    "kvm_intel": (
        _Aid("ept", "ept", "KVM shadows every page table of its guests: nested guests are many times slower"),
        _Aid(
            "enable_shadow_vmcs",
            "shadow_vmcs",
            "each VMREAD and VMWRITE of a guest's hypervisor leaves the guest, many for each exit of its own",
        ),
        _Aid("enable_apicv", "apicv", "interrupts of guests, and what nested guests wait for, take exits"),
        _Aid(
            "unrestricted_guest",
            "unrestricted_guest",
            "KVM emulates guests in real mode, and cannot offer better",
        ),
        _Aid("vpid", "vpid", "each entry and exit empties the TLB, and nesting multiplies entries and exits"),
    ),
    "kvm_amd": (
        _Aid("npt", "npt", "KVM shadows every page table of its guests: nested guests are many times slower"),
        _Aid("vls", "v_vmsave_vmload", "each VMSAVE and VMLOAD of a guest's hypervisor leaves the guest"),
        _Aid("vgif", "vgif", "each STGI and CLGI of a guest's hypervisor leaves the guest"),
        _Aid("vnmi", "vnmi", "KVM delivers NMIs by single-stepping the guest"),
    ),
}


def checks(reading: Reading, vmx_flags: frozenset[str]) -> tuple[Check, ...]:
    """One row `parameter-NAME` for each parameter that this driver has and this CPU could use.

    avic is not among them: KVM turns it off for a virtual CPU that runs a nested guest
    (APICV_INHIBIT_REASON_NESTED), so it neither speeds nesting up nor slows it down.
    """
    driver, parameters = reading.status.driver, reading.status.parameters
    has = reading.flags | vmx_flags
    return tuple(
        _check(driver, aid, parameters[aid.parameter])
        for aid in _AIDS.get(driver, ())
        if aid.parameter in parameters and aid.flag in has
    )


def _check(driver: str, aid: _Aid, value: str) -> Check:
    identity = f"parameter-{aid.parameter}"
    if read_switch(value) is not Nesting.OFF:
        return Check.passed(identity, f"{driver} uses the CPU's {aid.flag} ({aid.parameter}={value}).")
    return Check(
        identity,
        Verdict.WARN,
        f"{driver} runs with {aid.parameter}={value}, though this CPU has {aid.flag}: {aid.cost}.",
        f"Look for {aid.parameter} in /etc/modprobe.d and on the kernel command line, take it away unless it "
        f"is there for a reason, and load {driver} again.",
    )
