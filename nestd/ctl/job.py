# SPDX-License-Identifier: LGPL-2.1-or-later
"""What nestd is doing while a change is under way: its job, heard from signals."""

from __future__ import annotations

from typing import Any

from nestd.wire.header import Header

from .table import visible

_JOB = "org.nestd1.Job"


class JobWatch:
    """Follows the job of `operation` ("enable", "disable", "revert"); `before` is said until it is there."""

    def __init__(self, operation: str, before: str) -> None:
        self._operation = operation
        self._before = before
        self._path = ""
        self._known: dict[str, Any] = {}

    def hear(self, header: Header, values: list[Any]) -> None:
        """A signal of nestd's, with its variants unwrapped. What is no signal of this job says nothing."""
        match header.interface, header.member, values:
            case "org.freedesktop.DBus.ObjectManager", "InterfacesAdded", [str(path), dict(interfaces)]:
                found = interfaces.get(_JOB)
                # While we are asked for a password, or wait for our turn, another's change may be under way.
                if isinstance(found, dict) and found.get("Operation") == self._operation:
                    self._path, self._known = path, dict(found)
            case "org.freedesktop.DBus.ObjectManager", "InterfacesRemoved", [self._path, *_]:
                self._path, self._known = "", {}
            case "org.freedesktop.DBus.Properties", "PropertiesChanged", [str(), dict(changed), *_]:
                if header.path == self._path:
                    self._known |= changed

    def words(self) -> str:
        """What is being done now, on one line."""
        step, part = self._known.get("Step"), self._known.get("Progress")
        if not isinstance(step, str) or not isinstance(part, float):
            return self._before
        return f"{part:.0%}: {visible(step)}"
