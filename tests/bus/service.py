# SPDX-License-Identifier: LGPL-2.1-or-later
"""A small service on a private bus: what the tests of the bus talk to."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from nestd import errors, tasks
from nestd.bus import interface as description
from nestd.bus.connection import Connection
from nestd.bus.dispatcher import Authorize, Dispatcher
from nestd.bus.exported import Call, Exported, Handler, no_request

NAME = "org.nestd1"
TOP = "/org/nestd1"
IFACE = "org.example.Test"
PROPERTIES = "org.freedesktop.DBus.Properties"
POLICY = """<policy context="default">
  <allow own="org.nestd1"/><allow own="org.freedesktop.PolicyKit1"/>
  <allow send_destination="org.nestd1"/>
</policy>"""

XML = """<node>
  <!-- outside -->
  <interface name="org.example.Test">
    <!-- Echo: says it again. -->
    <method name="Echo">
      <arg name="text" type="s" direction="in"/>
      <arg name="again" type="s" direction="out"/>
    </method>
    <method name="Options"><arg type="a{sv}" direction="in"/></method>
    <method name="Wait"/>
    <method name="Fail"><arg name="how" type="s" direction="in"/></method>
    <method name="Open"><arg name="pipe" type="h" direction="out"/></method>
    <method name="Ping"/>
    <method name="Guarded"/>
    <property name="Colour" type="s" access="read"/>
    <property name="Size" type="u" access="read">
      <annotation name="org.freedesktop.DBus.Property.EmitsChangedSignal" value="const"/>
    </property>
    <property name="Mood" type="as" access="read">
      <annotation name="org.freedesktop.DBus.Property.EmitsChangedSignal" value="invalidates"/>
    </property>
    <signal name="Happened"><arg name="what" type="s"/></signal>
  </interface>
</node>"""


@dataclass
class Thing:
    """The exported object; `calls` are those that reached a handler, `waiting` the Waits under way."""

    interface: str = IFACE
    colour: str = "red\0"
    calls: list[Call] = field(default_factory=list)
    waiting: int = 0
    cancelled: int = 0
    # Set and cleared as Wait begins and ends.
    moved: tasks.Event = field(default_factory=tasks.Event)

    @property
    def methods(self) -> Mapping[str, Handler]:
        return {
            "Echo": Handler(no_request, lambda _, call: [call.arguments[0]]),
            "Options": Handler(no_request, self._note),
            "Wait": Handler(no_request, self._wait),
            "Fail": Handler(no_request, self._fail),
            "Open": Handler(no_request, self._open),
            "Ping": Handler(no_request, self._note, reads=True),
            "Guarded": Handler(no_request, self._note),
        }

    @property
    def state(self) -> object:
        return self.colour

    def properties(self) -> Mapping[str, Any]:
        return {"Colour": self.colour, "Size": 3, "Mood": ("good", "bad")}

    def _note(self, _: Any, call: Call) -> Sequence[Any]:
        self.calls.append(call)
        self.moved.set()
        return []

    async def _wait(self, _: Any, call: Call) -> Sequence[Any]:
        self.calls.append(call)
        self.waiting += 1
        self.moved.set()
        try:
            await tasks.Event().wait()
        except tasks.Cancelled:
            self.cancelled += 1
            raise
        finally:
            self.waiting -= 1
            self.moved.set()
        return []

    def _fail(self, _: Any, call: Call) -> Sequence[Any] | Coroutine[Any, Any, Sequence[Any]]:
        match call.arguments[0]:
            case "busy":
                raise errors.Busy("Another change runs: wait for it.")
            case "bug":
                raise RuntimeError("secret of /usr/lib/source.py")
            case "cancelled":
                return self._cancelled()
            case "cancelled at once":
                raise tasks.Cancelled
            case "later":
                return self._later()
        return ["a value too many"]

    async def _cancelled(self) -> Sequence[Any]:
        raise tasks.Cancelled

    async def _later(self) -> Sequence[Any]:
        await tasks.sleep(0)
        raise RuntimeError("secret of /usr/lib/source.py")

    def _open(self, _: Any, __: Call) -> Sequence[Any]:
        reading, writing = os.pipe()
        os.write(writing, b"hello")
        os.close(writing)
        return [reading]

    async def until_called(self, count: int) -> None:
        """Return when so many calls have reached a handler."""
        async with tasks.timeout(20):
            while len(self.calls) < count:
                self.moved.clear()
                await self.moved.wait()

    async def until_waiting(self, count: int) -> None:
        """Return when so many Wait are under way."""
        async with tasks.timeout(20):
            while self.waiting != count:
                self.moved.clear()
                await self.moved.wait()


def open_to_all(_: Call, __: Any, ___: Exported) -> None:
    """An `authorize` that lets everybody through."""


@dataclass
class Service:
    """What a test gets."""

    connection: Connection
    dispatcher: Dispatcher
    thing: Thing


@asynccontextmanager
async def serving(address: str, authorize: Authorize = open_to_all) -> AsyncIterator[Service]:
    """The service on that bus, its Thing at /org/nestd1."""
    connection = await Connection.connect(address)
    dispatcher = Dispatcher(connection, description.parse(XML), authorize, lambda: "0123456789abcdef" * 2)
    thing = Thing()
    dispatcher.export(TOP, thing)
    await connection.request_name(NAME)
    try:
        yield Service(connection, dispatcher, thing)
    finally:
        await dispatcher.close()
        await connection.close()
