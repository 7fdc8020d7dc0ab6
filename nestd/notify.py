# SPDX-License-Identifier: LGPL-2.1-or-later
"""Word to the service manager: readiness, stopping, the watchdog (sd_notify(3))."""

from __future__ import annotations

import os
from collections.abc import Callable
from time import monotonic_ns

from nestd.loop import Handle, running


class Notify:
    """sd_notify(3), and the watchdog's time kept on the loop: a loop that hangs is noticed."""

    def __init__(self) -> None:
        self._send: Callable[[str], object] | None = None
        self._timer: Handle | None = None
        if os.environ.get("NOTIFY_SOCKET"):
            from systemd.daemon import notify  # noqa: PLC0415 -- only where somebody listens

            self._send = notify

    def send(self, state: str) -> None:
        """Tell the service manager, if there is one."""
        while self._send is not None:
            try:
                self._send(state)
            except InterruptedError:
                continue  # a signal came; the C library leaves it to its callers to try again
            return

    def reloading(self) -> None:
        """Tell that the configuration is being read again; READY=1 tells that it was (Type=notify-reload)."""
        self.send(f"RELOADING=1\nMONOTONIC_USEC={monotonic_ns() // 1000}")

    def keep_alive(self) -> None:
        """Tell the watchdog at half its time, from now on (sd_watchdog_enabled(3))."""
        microseconds = os.environ.get("WATCHDOG_USEC", "")
        ours = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        if self._send is None or not ours or not microseconds.isdecimal():
            return
        self.send("WATCHDOG=1")
        pause = int(microseconds) / 2_000_000
        self._timer = running().call_later(pause, self.keep_alive)

    def close(self) -> None:
        """Tell no more."""
        if self._timer is not None:
            self._timer.cancel()
