# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest that runs and that nobody remembers: what can be known of it from its unit and from QEMU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nestd import log
from nestd.errors import Malformed
from nestd.guestmodel import GuestRecord, VcpuVerdict
from nestd.guests import places, records, vcpu
from nestd.host.qmpsocket import NotTheGuest, QmpRefused, QmpSocket, connect
from nestd.host.root import Root
from nestd.host.units import Units
from nestd.model import Extension
from nestd.text import qemu


async def adopt(root: Root, units: Units, name: str, known: Mapping[str, Any]) -> GuestRecord | None:
    """The record of the running unit with the properties `known`.

    None where there is no guest to speak of: the unit is not of nestd's making (it is left
    alone), or its launch was cut short before it ran (it is stopped). CallFailed.
    """
    command, owner = known.get("ExecStart", []), str(known.get("User", ""))
    shape = qemu.shape(command[0][1]) if command else None
    if shape is None or not owner.isdecimal():
        log.warning(f"{places.unit(name)} is not a guest that nestd started: it is left alone")
        return None
    verdict = VcpuVerdict(nesting=False, missing=())
    try:
        async with QmpSocket(connect(root.path(places.qmp(name)), int(owner))) as monitor:
            if await vcpu.waits_to_run(monitor):
                await units.stop(places.unit(name))
                return None
            # KVM gives a guest only the extension of the CPU below, so either one means nesting.
            verdict = await vcpu.ask(monitor, Extension.VMX, Extension.SVM)
    except (OSError, NotTheGuest, QmpRefused, Malformed) as error:
        log.warning(f"QEMU of {name} does not say what its vCPU got: {error}")
    return records.running(name, int(owner), shape, known, verdict)
