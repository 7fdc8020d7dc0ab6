# SPDX-License-Identifier: LGPL-2.1-or-later
"""org.nestd1.Lab, one object a lab: converts and delegates."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from nestd.bus import boundary, guest, manager
from nestd.bus.exported import Call, Following, Handler, no_request
from nestd.errors import LabNotFound
from nestd.guests.lab import LabView
from nestd.guests.labs import Labs
from nestd.model import Extension

INTERFACE = "org.nestd1.Lab"
PATH = f"{manager.PATH}/lab"


class Lab(Following[LabView]):
    """The object of the lab `view`.

    `ready` gives the extension, where guests can be started now that need it, or need it not.
    """

    interface = INTERFACE

    def __init__(self, labs: Labs, ready: Callable[[bool], Awaitable[Extension]], view: LabView) -> None:
        super().__init__(view)
        self._labs = labs
        self._ready = ready
        self.methods: Mapping[str, Handler] = {
            "Start": Handler(_nothing, self._start),
            "Stop": Handler(guest.timeout, self._stop),
            "Remove": Handler(no_request, self._remove),
        }

    def properties(self) -> dict[str, Any]:
        """Every property, from the last view."""
        view = self.state
        return {
            "Name": view.name,
            "Owner": view.owner,
            "State": str(view.state),
            "Subnet": view.subnet,
            "Nodes": [
                (each.name, each.address, each.mac, manager.guest_path(each.guest) if each.guest else "/")
                for each in view.nodes
            ],
            "Created": view.created,
        }

    async def _start(self, _: None, __: Call) -> Sequence[Any]:
        name, created = self.state.name, self.state.created
        extension = await self._ready(self.state.require_nesting)
        if self._labs.get(name).created != created:
            raise LabNotFound(f"The lab {name} has been removed meanwhile, and another one made.")
        await self._labs.start(name, extension)
        return []

    async def _stop(self, seconds: int, _: Call) -> Sequence[Any]:
        await self._labs.stop(self.state.name, seconds)
        return []

    async def _remove(self, _: None, __: Call) -> Sequence[Any]:
        await self._labs.remove(self.state.name)
        return []


def _nothing(call: Call) -> None:
    boundary.options(call.arguments[0], {})
