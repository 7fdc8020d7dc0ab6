# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is done to a guest that is being stopped, and for how long yet: heard from signals."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from nestd.wire.header import Header

from .table import visible

_DOING = {
    "power-button": "Powering off {}: its unit is stopped in {:.0f} s",
    "unit": "Stopping the unit of {}: it is killed in {:.0f} s",
}


class StopWatch:
    """Follows the guest `name` at `path`; `before` is said until something is done to stop it."""

    def __init__(self, path: str, name: str, before: str) -> None:
        self._path = path
        self._name = visible(name)
        self._before = before
        self._known: dict[str, Any] = {}

    def know(self, values: Mapping[str, Any]) -> None:
        """Take in properties of the guest, by the bus's names."""
        self._known |= values

    def hear(self, header: Header, values: list[Any]) -> None:
        """A signal of nestd's, with its variants unwrapped. What is not about this guest says nothing."""
        match header.member, values:
            case "PropertiesChanged", [str(), dict(changed), *_] if header.path == self._path:
                self.know(changed)

    def words(self) -> str:
        """What is being done now, on one line."""
        doing, until = _DOING.get(str(self._known.get("Stopping"))), self._known.get("StopDeadline")
        if doing is None or not isinstance(until, int):
            return self._before
        return doing.format(self._name, max(0.0, until / 1e6 - time.time()))
