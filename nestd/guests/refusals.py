# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is said where a guest could not be had, and what to do then."""

from __future__ import annotations

from nestd.guestmodel import GuestSpec, VcpuVerdict
from nestd.model import Extension

# What QEMU says, and what helps.
_REMEDIES = {
    "Could not set up host forwarding rule": (
        "Something else listens on that port (`ss -ltunp` tells what), or the address is none of this "
        "machine's: forward another one."
    ),
    "network backend 'user' is not compiled": (
        "This QEMU cannot give a guest the network user: leave it out, or use a QEMU with libslirp."
    ),
    "is not a valid device model name": (
        "This QEMU comes without that device: install the package that has it, or leave the option out."
    ),
}


def not_started(name: str, why: str) -> str:
    """QEMU ended before the guest ran, with these last words."""
    remedy = next((remedy for words, remedy in _REMEDIES.items() if words in why), "")
    return f"QEMU did not start {name}: {why}" + (f"\n{remedy}" if remedy else "")


def not_begun(result: str, why: str) -> str:
    """Why systemd did not start a unit: the result of its job, and why the unit ended, if it has."""
    if result != "timeout":
        return why
    return (
        "systemd did not get to it in time, so it was taken back. The machine may be too busy, which "
        "`systemctl list-jobs` and `systemd-cgtop` tell: try again when it is not."
    )


def not_granted(spec: GuestSpec, extension: Extension, verdict: VcpuVerdict) -> str:
    """The guest would have run without the extension."""
    flag = extension.value
    if f"-{flag}" in spec.cpu_features:
        return f"{spec.name} would run without {flag}: cpu-features takes it away. Leave -{flag} out."
    dropped = ", ".join(verdict.missing) or "none that it names"
    return (
        f"{spec.name} would run without {flag}: QEMU did not give it to the CPU model {spec.cpu} "
        f"(flags dropped: {dropped}). Look at `nestctl diagnose`, try another cpu, or set require-nesting "
        "to false."
    )
