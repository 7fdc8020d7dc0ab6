# SPDX-License-Identifier: LGPL-2.1-or-later
"""The current reading, and word of each change to whoever listens.

Properties are served from here, so that no getter can fail; every event that could make it
stale (a module came or went, a configuration file changed, nestd changed something) refreshes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nestd import log
from nestd.host.machine import Host
from nestd.model import Status
from nestd.nesting.circumstances import Circumstances
from nestd.nesting.status import Reading, read


class Observer:
    """Holds the last reading. `on_change` gets the status before and after, when they differ."""

    def __init__(
        self, host: Host, circumstances: Circumstances, on_change: Callable[[Status, Status], None]
    ) -> None:
        self._host = host
        self._circumstances = circumstances
        self._on_change = on_change
        self.holding = False
        self._reading = read(host, circumstances)

    @property
    def reading(self) -> Reading:
        """The last reading."""
        return self._reading

    @property
    def status(self) -> Status:
        """The status of the last reading."""
        return self._reading.status

    def refresh(self) -> Reading:
        """Read again, tell the listener of a difference, return the reading. OSError if /proc fails."""
        before = self._reading.status
        self._reading = read(self._host, self._circumstances)
        if self._reading.status != before:
            self._on_change(before, self._reading.status)
        return self._reading

    def learn(self, circumstances: Circumstances) -> None:
        """The circumstances were looked up again: read with them, unless a change is under way."""
        self._circumstances = circumstances
        self.stale()

    def stale(self) -> None:
        """Something happened: refresh, unless a change is under way, whose end refreshes anyway.

        While a driver is being reloaded, asking KVM would hold the very driver that is to go.
        """
        if self.holding:
            return
        try:
            self.refresh()
        except OSError as failure:
            log.error(f"The machine could not be read, so what is shown may be old: {failure}")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Answer from the last reading while a change is under way; refresh at its end."""
        self.holding = True
        try:
            yield
        finally:
            self.holding = False
            self.stale()
