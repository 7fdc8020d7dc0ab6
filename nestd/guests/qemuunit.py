# SPDX-License-Identifier: LGPL-2.1-or-later
"""A unit whose process is QEMU, be it a guest's or the hub of a lab: its monitor, and its removal."""

from __future__ import annotations

import errno
import signal
import socket
from collections.abc import Mapping
from typing import Any

from nestd import tasks
from nestd.host.qmpsocket import connect
from nestd.host.units import Units, UnitWatch

# Seconds until QEMU listens; opening slow disks comes before that.
_LISTEN_LIMIT = 30.0
_LISTEN_PAUSE = 0.02
# Seconds for the unit's end once QEMU hung up, or was told to go (systemd kills it after 10, TimeoutStopUSec
# of guests/sandbox.py).
END_LIMIT = 20.0


async def monitor(path: str, uid: int, ended: tasks.Future[Mapping[str, Any]]) -> socket.socket:
    """The connection to the monitor at `path`, as soon as QEMU listens there.

    `ended` is done when its unit has ended. TimeoutError; ConnectionResetError: it ended before; and what
    host/qmpsocket.py's `connect` raises besides.
    """
    async with tasks.timeout(_LISTEN_LIMIT):
        while not ended.done():
            try:
                return connect(path, uid)
            except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
                await tasks.sleep(_LISTEN_PAUSE)
    raise ConnectionResetError(errno.ECONNRESET, "QEMU has ended")


async def remove(units: Units, watch: UnitWatch) -> None:
    """Leave nothing of the unit; who follows it goes on with that. CallFailed."""
    await units.settle(watch)
    await units.stop(watch.unit)
    await tasks.wait([watch.ended], END_LIMIT)
    if not watch.ended.done():
        await units.kill(watch.unit, signal.SIGKILL)
    await units.reset_failed(watch.unit)
