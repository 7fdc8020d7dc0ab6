# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon: builds the objects, exports them, lives until it is told to stop.

The name is taken as soon as a status can be answered; what costs time and is not needed for that
(udev, whose library runs ldconfig, and inotify) starts behind it, followed by one more reading.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from nestd import errors, log
from nestd.bus.connection import Connection
from nestd.bus.dispatcher import Dispatcher
from nestd.host.machine import Host
from nestd.host.virt import virtualization

BUS_NAME = "org.nestd1"


def run(bus: str, host: Host | None = None) -> int:
    """Serve on `bus` (system, session or an address) until SIGTERM or SIGINT; the exit code."""
    try:
        return asyncio.run(_serve(bus, host or Host.running()))
    except (errors.NestdError, OSError) as failure:
        log.error(f"nestd cannot go on: {failure}")
        return 1
