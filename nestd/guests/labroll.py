# SPDX-License-Identifier: LGPL-2.1-or-later
"""The labs by their names, and how each was when it was last told of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from nestd.errors import GuestExists, LabNotFound
from nestd.guests import checks
from nestd.guests.lab import LabView
from nestd.guests.livelab import LiveLab


class Told(Protocol):
    """Who is told of labs, on the loop."""

    def added(self, view: LabView) -> None:
        """It is there."""

    def changed(self, view: LabView) -> None:
        """It is otherwise than before."""

    def removed(self, view: LabView) -> None:
        """It is there no more."""


class Roll:
    """Those that are there; each change of one is told to `told`."""

    def __init__(self, told: Told) -> None:
        self._told = told
        self._labs: dict[str, LiveLab] = {}
        self._views: dict[str, LabView] = {}

    def __iter__(self) -> Iterator[LiveLab]:
        return iter(list(self._labs.values()))

    def __contains__(self, live: LiveLab) -> bool:
        return self._labs.get(live.lab.name) is live

    def has(self, name: str) -> bool:
        """Whether there is a lab of that name."""
        return name in self._labs

    def get(self, name: str) -> LiveLab:
        """The lab of that name. LabNotFound."""
        if name not in self._labs:
            raise LabNotFound(
                f"There is no lab {checks.shown(name)}: `nestctl lab list` names those that are."
            )
        return self._labs[name]

    def check_guest(self, name: str) -> None:
        """Return if no node of a lab, whether that runs or not, is called so. GuestExists."""
        lab, _, number = name.rpartition("-")
        if lab in self._labs and number in map(str, self._labs[lab].lab.numbers):
            raise GuestExists(
                f"{name} is a node of the lab {lab}, whether that runs or not: choose another name "
                f"(`nestctl lab start {lab}` starts the node)."
            )

    def add(self, live: LiveLab) -> None:
        """It is there now."""
        view = live.view()
        self._labs[live.lab.name] = live
        self._views[live.lab.name] = view
        self._told.added(view)

    def look(self, live: LiveLab) -> None:
        """Tell if it is otherwise than before; nothing where it is no more."""
        if live not in self:
            return
        before, now = self._views[live.lab.name], live.view()
        if before != now:
            self._views[live.lab.name] = now
            self._told.changed(now)

    def remove(self, live: LiveLab) -> None:
        """It is there no more."""
        del self._labs[live.lab.name]
        self._told.removed(self._views.pop(live.lab.name))
