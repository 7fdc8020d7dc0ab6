# SPDX-License-Identifier: LGPL-2.1-or-later
"""Kernel uevents of a subsystem, on the loop, from the kernel itself: it works without udevd."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from nestd.loop import running
from nestd.model import ModuleEvent

if TYPE_CHECKING:
    from pyudev import Monitor

# The kernel sends all its uevents to this socket, modules' or not; a boot has thousands of them.
_BUFFER = 8 << 20


class UeventMonitor:
    """Calls `on_event` with the action and the device's name for each uevent of `subsystem`.

    `on_overflow` says, once for each time that events were lost, that all must be read anew.
    """

    def __init__(
        self, subsystem: str, on_event: Callable[[str, str], None], on_overflow: Callable[[], None]
    ) -> None:
        self._subsystem = subsystem
        self._on_event = on_event
        self._on_overflow = on_overflow
        self._monitor: Monitor | None = None

    def start(self) -> None:
        """Listen, on the running loop. Raises OSError where there is no netlink to be had."""
        # Importing pyudev runs ldconfig (30 ms), so it waits until somebody wants it.
        from pyudev import Context, Monitor  # noqa: PLC0415

        monitor = Monitor.from_netlink(Context(), "kernel")
        monitor.filter_by(self._subsystem)
        # Beyond the system's limit only with CAP_NET_ADMIN; without it an overflow is likelier, no more.
        with suppress(OSError):
            monitor.set_receive_buffer_size(_BUFFER)
        monitor.start()
        running().add_reader(monitor.fileno(), self._read)
        self._monitor = monitor

    def close(self) -> None:
        """Listen no more. The socket goes with the monitor (udev_monitor_unref)."""
        if self._monitor is not None:
            running().remove_reader(self._monitor.fileno())
            self._monitor = None

    def _read(self) -> None:
        # A handler may close the monitor.
        while self._monitor is not None:
            try:
                device = self._monitor.poll(timeout=0)
            except OSError as error:
                if not self._overflowed(error):
                    self.close()
                    raise
                self._on_overflow()
                continue
            if device is None:
                return
            self._on_event(device.action, device.sys_name)

    def _overflowed(self, error: OSError) -> bool:
        """Whether it was an overflow. pyudev's poll has no errno, and fails until the socket's is fetched."""
        if error.errno == errno.ENOBUFS or self._monitor is None:
            return True
        with socket.socket(fileno=os.dup(self._monitor.fileno())) as same:
            return same.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ENOBUFS


class ModuleMonitor(UeventMonitor):
    """Calls `on_event` for each module that came or went, whoever did it.

    A module's `add` comes after its init since kernel 5.11; on older ones read again a little later.
    """

    def __init__(self, on_event: Callable[[ModuleEvent], None], on_overflow: Callable[[], None]) -> None:
        def module(action: str, name: str) -> None:
            # `udevadm trigger` makes others, which say nothing about the module.
            if action in ("add", "remove"):
                on_event(ModuleEvent(action, name))

        super().__init__("module", module, on_overflow)
