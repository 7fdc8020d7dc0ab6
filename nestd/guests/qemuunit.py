# SPDX-License-Identifier: LGPL-2.1-or-later
"""A unit whose process is QEMU, be it a guest's or the hub of a lab: its monitor, and its removal."""

from __future__ import annotations

import errno
import signal
import socket
from collections.abc import Mapping
from typing import Any

from nestd import tasks
from nestd.errors import NO_REPLY, CallFailed
from nestd.guests import refusals, sandbox
from nestd.host import words
from nestd.host.commands import Commands
from nestd.host.qmpsocket import connect
from nestd.host.units import JobFailed, Units, UnitWatch, invocation

# Seconds for systemd to start it: beyond its own limit, so that it is systemd that says what was too slow.
START_LIMIT = sandbox.START_LIMIT + 10.0
# Seconds until QEMU listens, and for each answer. It listens at once and greets only when its disks are open.
ANSWER_LIMIT = 30.0
_LISTEN_PAUSE = 0.02
# Seconds for the unit's end once QEMU hung up, or was told to go (systemd kills it after 10, TimeoutStopUSec
# of guests/sandbox.py).
END_LIMIT = 20.0


async def monitor(
    path: str, uid: int, ended: tasks.Future[Mapping[str, Any]], limit: float = ANSWER_LIMIT
) -> socket.socket:
    """The connection to the monitor at `path`, as soon as QEMU listens there.

    `limit`: seconds until it does. `ended` is done when its unit has ended. TimeoutError;
    ConnectionResetError: it ended before; and what host/qmpsocket.py's `connect` raises besides.
    """
    async with tasks.timeout(limit):
        while not ended.done():
            try:
                return connect(path, uid)
            except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
                await tasks.sleep(_LISTEN_PAUSE)
    raise ConnectionResetError(errno.ECONNRESET, "QEMU has ended")


async def why_not_begun(units: Units, commands: Commands, watch: UnitWatch, failure: JobFailed) -> str:
    """Why the unit did not start; it is not removed by that."""
    try:
        await units.settle(watch)
    except CallFailed as error:
        # Without an answer nothing is known of the unit, as if there were none.
        if error.name != NO_REPLY:
            raise
    await words.sync(commands)
    said = await words.said(commands, invocation(watch.known))
    return refusals.not_begun(failure.result, watch.known, said)


async def remove(units: Units, watch: UnitWatch) -> None:
    """Leave nothing of the unit; who follows it goes on with that. CallFailed.

    Where systemd does not answer in time, it removes the unit when it comes to that: it takes one sender's
    messages in their order, so it stops what it was told to start before.
    """
    try:
        await units.stop(watch.unit)
    except CallFailed as error:
        if error.name != NO_REPLY:
            raise
    await units.settle(watch)
    await tasks.wait([watch.ended], END_LIMIT)
    if not watch.ended.done():
        await units.kill(watch.unit, signal.SIGKILL)
    await units.reset_failed(watch.unit)
