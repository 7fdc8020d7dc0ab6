# SPDX-License-Identifier: LGPL-2.1-or-later
"""org.nestd1.Guest, one object a guest: converts and delegates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nestd import errors
from nestd.bus import boundary
from nestd.bus.exported import Call, Following, Handler, no_request
from nestd.guestmodel import GuestRecord
from nestd.guests.registry import Registry

INTERFACE = "org.nestd1.Guest"
_STOP_OPTIONS = {"timeout": "t"}
_STOP_TIMEOUT = 30  # seconds
_LONGEST_TIMEOUT = 86_400


class Guest(Following[GuestRecord]):
    """The object of the guest `record`."""

    interface = INTERFACE

    def __init__(self, registry: Registry, record: GuestRecord) -> None:
        super().__init__(record)
        self._registry = registry
        self.methods: Mapping[str, Handler] = {
            "Stop": Handler(timeout, self._stop),
            "Kill": Handler(no_request, self._kill),
            "OpenConsole": Handler(no_request, self._open_console),
            "GetConsoleLog": Handler(no_request, self._console_log, reads=True),
        }

    def properties(self) -> dict[str, Any]:
        """Every property, from the last record."""
        record = self.state
        return {
            "Name": record.name,
            "State": str(record.state),
            "Owner": record.owner,
            "Unit": record.unit,
            "Pid": record.pid,
            "Cpu": record.cpu,
            "Nesting": record.nesting,
            "MissingFlags": list(record.missing_flags),
            "Memory": record.memory,
            "Vcpus": record.vcpus,
            "Started": record.started,
            "Console": record.console,
            "ExitStatus": record.exit_status,
            "Vnc": record.vnc,
            "Lab": record.lab,
            "Stopping": record.stopping,
            "StopDeadline": record.stop_deadline,
            "Ended": record.ended,
            "Result": record.result,
            "LastWords": list(record.last_words),
        }

    async def _stop(self, seconds: int, _: Call) -> Sequence[Any]:
        await self._registry.stop(self.state.name, seconds)
        return []

    async def _kill(self, _: None, __: Call) -> Sequence[Any]:
        await self._registry.kill(self.state.name)
        return []

    async def _open_console(self, _: None, __: Call) -> Sequence[Any]:
        return [await self._registry.open_console(self.state.name)]

    def _console_log(self, _: None, __: Call) -> Sequence[Any]:
        return [self._registry.console_log(self.state.name)]


def timeout(call: Call) -> int:
    """`validate` for Stop: seconds. InvalidArgs."""
    seconds: int = boundary.options(call.arguments[0], _STOP_OPTIONS).get("timeout", _STOP_TIMEOUT)
    if seconds > _LONGEST_TIMEOUT:
        raise errors.InvalidArgs(f"timeout is in seconds, at most {_LONGEST_TIMEOUT} (a day), not {seconds}.")
    return seconds
