# SPDX-License-Identifier: LGPL-2.1-or-later
"""CreateLab and GetLab of org.nestd1.Manager, and the labs' objects, which come and go with the labs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from nestd import log
from nestd.bus import launchoptions
from nestd.bus.dispatcher import Dispatcher
from nestd.bus.exported import Call, Handler
from nestd.bus.lab import INTERFACE, PATH, Lab
from nestd.bus.runas import RunAs
from nestd.guestmodel import GuestSpec
from nestd.guests import lab as values
from nestd.guests import request
from nestd.guests.lab import LabView
from nestd.guests.labs import Labs
from nestd.guests.livelab import Ground
from nestd.host.services import bus_label_escape
from nestd.model import Extension

_OPTIONS = {**{name: kind for name, kind in request.OPTIONS.items() if name != "network"}, **values.OPTIONS}


class CreateRequest(NamedTuple):
    """CreateLab, validated: `nodes` is their number, `spec` the first of them.

    `user` is empty where the option was not given.
    """

    name: str
    user: str
    options: Mapping[str, Any]
    nodes: int
    spec: GuestSpec


class LabObjects:
    """Owns the labs, and exports them. To be made when there is a lab, or somebody asks for one."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        ground: Ground,
        run_as: RunAs,
        ready: Callable[[bool], Awaitable[Extension]],
    ) -> None:
        self._dispatcher = dispatcher
        self._run_as = run_as
        self._ready = ready
        self._objects: dict[str, Lab] = {}
        self.labs = Labs(ground, self)
        self.methods: Mapping[str, Handler] = {
            "CreateLab": Handler(_create_request, self._create),
            "GetLab": Handler(lambda call: call.arguments[0], self._get, reads=True),
        }

    def added(self, view: LabView) -> None:
        """A lab's object comes."""
        lab = self._objects[view.name] = Lab(self.labs, self._ready, view)
        self._dispatcher.export(_path(view.name), lab)

    def changed(self, view: LabView) -> None:
        """Its properties are now those of `view`."""
        if changed := self._objects[view.name].update(view):
            self._dispatcher.changed(_path(view.name), INTERFACE, changed)

    def removed(self, view: LabView) -> None:
        """Its object goes."""
        del self._objects[view.name]
        self._dispatcher.withdraw(_path(view.name))
        log.info(f"The lab {view.name} was removed.")

    async def _create(self, asked: CreateRequest, call: Call) -> Sequence[Any]:
        user = await self._run_as.account(asked.user, call)
        extension = await self._ready(asked.spec.require_nesting)
        view = await self.labs.create(asked.name, user, asked.options, extension)
        log.info(f"The lab {view.name} was created for uid {view.owner}: {len(view.nodes)} nodes run.")
        return [_path(view.name)]

    def _get(self, name: str, _: Call) -> Sequence[Any]:
        return [_path(self.labs.get(name).name)]


def _create_request(call: Call) -> CreateRequest:
    name, raw = call.arguments
    options = launchoptions.plain(raw, _OPTIONS)
    user = options.pop("user", "")
    lab = values.new(name, 0, user, options)
    return CreateRequest(name, user, options, lab.nodes, values.spec(lab, 1))


def _path(name: str) -> str:
    return f"{PATH}/{bus_label_escape(name)}"
