# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest that runs and that nobody remembers: what can be known of it from its unit and from QEMU."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

from nestd import log, tasks
from nestd.errors import Malformed
from nestd.guestmodel import GuestRecord, VcpuVerdict
from nestd.guests import places, records, vcpu
from nestd.host.qmpsocket import NotTheGuest, QmpRefused, QmpSocket, connect
from nestd.host.root import Root
from nestd.host.units import Units
from nestd.model import Extension
from nestd.text import qemu

# Seconds for all that is asked of QEMU, and for QEMU to listen: its start may have been a moment ago.
_LIMIT, _LISTEN_LIMIT = 15.0, 3.0
_LISTEN_PAUSE = 0.05


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
        async with (
            tasks.timeout(_LIMIT),
            QmpSocket(await _connection(root.path(places.qmp(name)), int(owner))) as monitor,
        ):
            if await vcpu.waits_to_run(monitor):
                await units.stop(places.unit(name))
                return None
            # KVM gives a guest only the extension of the CPU below, so either one means nesting.
            verdict = await vcpu.ask(monitor, root, Extension.VMX, Extension.SVM)
    except (OSError, NotTheGuest, QmpRefused, Malformed) as error:
        why = "it does not answer" if isinstance(error, TimeoutError) else error
        told = "so it is shown without nesting, whether it can nest or not"
        log.warning(f"QEMU of {name} does not say what its vCPU got, {told}: {why}")
    return records.running(name, int(owner), shape, known, verdict)


async def _connection(path: str, uid: int) -> socket.socket:
    """The connection to its monitor; what `connect` raises."""
    for _ in range(int(_LISTEN_LIMIT / _LISTEN_PAUSE)):
        try:
            return connect(path, uid)
        except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
            await tasks.sleep(_LISTEN_PAUSE)
    return connect(path, uid)
