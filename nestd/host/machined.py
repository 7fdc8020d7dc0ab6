# SPDX-License-Identifier: LGPL-2.1-or-later
"""systemd-machined, which lists a machine's guests (machinectl(1)). Source: org.freedesktop.machine1(5)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from nestd import log
from nestd.errors import CallFailed
from nestd.host.services import Bus

_NAME = "org.freedesktop.machine1"
_WHERE = (_NAME, "/org/freedesktop/machine1", f"{_NAME}.Manager")
_UNKNOWN = f"{_NAME}.NoMachineForPID"
# There is no machined here, or it is masked: what the bus and systemd say to its activation.
_ABSENT = ("org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.Spawn.")
_MASKED = ("org.freedesktop.systemd1.NoSuchUnit", "org.freedesktop.systemd1.UnitMasked")
# hostname_is_valid() of systemd, which is what the name of a machine must be.
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_LONGEST = 64


def machine_name(guest: str) -> str:
    """What a guest is called among all machines: so that none of nestd's takes the name of another's.

    What such a name cannot have is written as a dash and its number: `a_b` is `nestd-a-5fb`.
    """
    if not re.fullmatch(rf"{_LABEL}(?:\.{_LABEL})*", guest):
        guest = re.sub(r"[^A-Za-z0-9]", lambda found: f"-{ord(found[0]):02x}", guest)
    return f"nestd-{guest}"[:_LONGEST].rstrip("-.")


async def register(bus: Bus, guest: str, pid: int) -> None:
    """Have machined list the guest, whose QEMU is `pid`, until its unit ends: once, if called again.

    Where there is no machined, that is all; a refusal is logged.
    """
    try:
        await _call(bus, "GetMachineByPID", "u", [pid])
    except CallFailed as error:
        if error.name == _UNKNOWN:
            await _register(bus, guest, pid)
        else:
            _complain(guest, error)


async def _register(bus: Bus, guest: str, pid: int) -> None:
    # name, id, service, class, leader, root directory
    machine = [machine_name(guest), b"", "nestd", "vm", pid, ""]
    try:
        await _call(bus, "RegisterMachine", "sayssus", machine)
    except CallFailed as error:
        _complain(guest, error)


async def _call(bus: Bus, member: str, signature: str, body: Sequence[object]) -> list[Any]:
    return await bus.call(*_WHERE, member, signature, body)


def _complain(guest: str, error: CallFailed) -> None:
    if not error.name.startswith(_ABSENT) and error.name not in _MASKED:
        log.warning(f"systemd-machined does not list the guest {guest}, which runs all the same: {error}")
