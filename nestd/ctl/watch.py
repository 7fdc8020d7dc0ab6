# SPDX-License-Identifier: LGPL-2.1-or-later
"""watch: what happens, a line each, until somebody ends it."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from typing import Any

from nestd.wire.header import Header

from . import eventrender
from .client import Client
from .commands import MANAGER, MANAGER_PATH
from .events import Event, World
from .failures import Refused, Unwritable
from .screen import Screen

_OBJECTS = "org.freedesktop.DBus.ObjectManager"


def watch(given: Namespace, client: Client, screen: Screen) -> None:
    """Follow nestd: what is so at first, then each event; also its going and its coming back.

    Ends by KeyboardInterrupt, by BrokenPipeError when nobody reads on, or Unreachable with the bus.
    """
    if sys.stdout is None:
        raise Unwritable("cannot write the output: standard output is closed")
    Watch(client, screen, as_json=given.json).follow(sys.stdout.fileno())


class Watch:
    """Follows nestd on a client's connection."""

    def __init__(self, client: Client, screen: Screen, *, as_json: bool) -> None:
        self._client = client
        self._screen = screen
        self._json = as_json
        self._world: World | None = None
        self._coming: World | None = None
        self._moves: list[bool] = []

    def follow(self, reader: int) -> None:
        """Until something ends it; `reader` is the descriptor that is written to."""
        self._client.listen(self._hear, self._moves.append)
        self._world = self._now()
        self._moves.clear()
        self._tell(self._world.start())
        while True:
            self._client.wait(reader)
            while self._moves:
                self._moved(self._world, self._moves.pop(0))

    def _now(self) -> World:
        # What is heard before an answer is older than it, and between the two younger than the first.
        try:
            (objects,) = self._client.call(
                MANAGER_PATH, _OBJECTS, "GetManagedObjects", returns="a{oa{sa{sv}}}"
            )
            now = self._coming = World({}, objects)
            (status,) = self._client.call(MANAGER_PATH, MANAGER, "GetStatus", returns="a{sv}")
        finally:
            self._coming = None
        now.know(status)
        return now

    def _hear(self, header: Header, values: list[Any]) -> None:
        if self._coming is not None:
            self._coming.hear(header.path, header.member, values)
        if self._world is not None:
            for event in self._world.hear(header.path, header.member, values):
                self._tell(event)

    def _moved(self, world: World, there: bool) -> None:
        if not there:
            self._tell(Event("nestd-gone", {}))
            return
        try:
            now = self._now()
        except Refused:  # it has gone again, which the bus tells, too
            return
        self._tell(Event("nestd-back", {"version": now.start().values["status"].get("version", "")}))
        for event in world.again(now):
            self._tell(event)

    def _tell(self, event: Event) -> None:
        now = time.time_ns() // 1000
        if self._json:
            import json  # noqa: PLC0415 - as Screen.json

            whole = {"time": _utc(now), "event": event.name, **event.values}
            self._screen.say(json.dumps(whole, default=list) + "\n")
        elif words := eventrender.line(event, self._screen.style):
            local = time.strftime("%b %d %H:%M:%S", time.localtime(now // 1_000_000))
            self._screen.say(f"{self._screen.style.dim(local)} {words}\n")


def _utc(microseconds: int) -> str:
    """RFC 3339, to the microsecond."""
    whole, part = divmod(microseconds, 1_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{part:06}Z"
