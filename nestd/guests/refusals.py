# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is said where a guest could not be had, and what to do then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nestd.errors import NO_REPLY, CallFailed
from nestd.guestmodel import GuestSpec, VcpuVerdict
from nestd.host import words
from nestd.model import Extension

# What QEMU says, and what helps; the first that fits.
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
    "Could not access KVM kernel module": (
        "The group kvm has to be let read and write /dev/kvm (`ls -l /dev/kvm`), as udev's own rules have it."
    ),
    "Permission denied": (
        "QEMU runs as the user {user}, who has to be let read (and write) the file and enter its folders; "
        "root can name another user with --user. /dev/shm and /run/user are out of every guest's reach."
    ),
}
_LATE = (
    "systemd did not get to it in time, so it was taken back. The machine may be too busy, which "
    "`systemctl list-jobs` and `systemd-cgtop` tell: try again when it is not."
)
_HIDDEN = (
    "If it is there: a guest with the network user sees of /run little more than /run/media, and nothing of "
    "/tmp unless one of its own files is named there. Put the file, and what it links to or builds on, "
    "elsewhere."
)


def not_started(spec: GuestSpec, why: str) -> str:
    """QEMU ended before the guest ran, with these last words."""
    return f"QEMU did not start {spec.name}: {remedied(spec, why)}"


def not_answered(name: str, limit: float) -> str:
    """QEMU has not said for so many seconds what it was to say."""
    return (
        f"QEMU of {name} has not answered for {limit:g} s, and was ended: it may be opening a disk on a file "
        "system that hangs, or the machine is too busy. Try again when that is over."
    )


def remedied(spec: GuestSpec, why: str) -> str:
    """Somebody's last words, and below them what helps, if that is known."""
    remedy = next((remedy for said, remedy in _REMEDIES.items() if said in why), "")
    if spec.network.kind == "user" and "No such file or directory" in why:
        remedy = _HIDDEN
    return f"{why}\n{remedy.format(user=spec.user)}" if remedy else why


def lost_disk(lab: str, spec: GuestSpec, why: str) -> str:
    """What helps if a node's own disk or its base is not there any more, by QEMU's words; else empty.

    The words (block.c) are the same for both, for a base with "Could not open backing file: " before.
    """
    for overlay in spec.overlays:
        if f"Could not open '{overlay.path}': No such file" in why:
            return (
                f"The own disk of {spec.name} is gone: remove the lab (`nestctl lab remove {lab}`) "
                "and create it again."
            )
        if f"Could not open '{overlay.base}': No such file" in why:
            return (
                f"The base of the disk of {spec.name} has to stay at {overlay.base}: put it back as it was, "
                "then start the lab again."
            )
    return ""


def refused(unit: str, error: CallFailed) -> str:
    """systemd did not take a call that has to do with the start of a unit."""
    if error.name == NO_REPLY:
        return f"{unit} did not start (timeout): {_LATE}"
    return f"systemd refused to start {unit}: {error.text}"


def not_begun(result: str, known: Mapping[str, Any], said: str) -> str:
    """Why systemd did not start a unit: its job's result, its properties, and what it said, if anything."""
    if result == "canceled":
        return "it was stopped before QEMU ran: by somebody, or as the machine shuts down."
    if result == "dependency":
        return "systemd could not start machine.slice: `systemctl status machine.slice` says why."
    if "timeout" not in {result, known.get("Result")}:
        return said or words.way_out(known)
    if known.get("Result") != "timeout" and known.get("ActiveState") != "activating":
        return _LATE
    slow = "QEMU's own start" if known.get("ExecMainStartTimestamp") else "what prepares its files"
    return (f"{said}\n" if said else "") + (
        f"{slow} took too long, and was ended: a file system may hang, or the machine is too busy. "
        "Try again when that is over."
    )


def not_granted(spec: GuestSpec, extension: Extension, verdict: VcpuVerdict) -> str:
    """The guest would have run without the extension."""
    flag = extension.value
    if f"-{flag}" in spec.cpu_features:
        return f"{spec.name} would run without {flag}: cpu-features takes it away. Leave -{flag} out."
    dropped = f" (flags dropped: {', '.join(verdict.dropped)})" if verdict.dropped else ""
    return (
        f"{spec.name} would run without {flag}: QEMU did not give it to the CPU model {spec.cpu}{dropped}. "
        "Look at `nestctl diagnose`, try another cpu, or set require-nesting to false."
    )
