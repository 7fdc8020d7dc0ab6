# SPDX-License-Identifier: LGPL-2.1-or-later
"""The guests of an earlier nestd: those that run are found again, of the others it is told how they ended."""

from __future__ import annotations

import re
from typing import Any, Protocol

from nestd import log
from nestd.errors import CallFailed, Malformed
from nestd.guestmodel import GuestRecord
from nestd.guests import places, records
from nestd.guests.adopt import adopt
from nestd.guests.life import STOP_LIMIT, UNIT
from nestd.host.root import Root
from nestd.host.units import OVER, Units, UnitWatch
from nestd.turns import Turns


class Takes(Protocol):
    """Where what is found goes: guests/registry.py."""

    def add(self, record: GuestRecord, watch: UnitWatch) -> None:
        """A guest that runs. OSError."""

    def add_ended(self, record: GuestRecord) -> None:
        """One that has ended; its `result` is empty if its unit is gone, too."""


class Restorer:
    """Looks at one name after the other, or at all of them at once: only to ask systemd do they take turns.

    It answers one question after the other in any case, and each has its limit of time.
    """

    def __init__(self, root: Root, units: Units, takes: Takes) -> None:
        self._root = root
        self._units = units
        self._takes = takes
        self._turns = Turns()

    async def restore(self, name: str, state: str) -> None:
        """Find one guest; `state` is its unit's ActiveState, empty where there is none. Errors are logged."""
        unit = places.unit(name)
        try:
            if name.startswith(places.OWN):
                await self._end(unit, state)
            elif re.fullmatch(places.NAME_PATTERN, name):
                await self._restore(name, unit, state)
        except (OSError, CallFailed) as error:
            log.error(f"What became of {unit} cannot be told, so it is left alone: {error}")

    async def _end(self, unit: str, state: str) -> None:
        """Whoever waited for this guest is gone."""
        if state == "failed":
            await self._units.reset_failed(unit)
        else:
            await self._units.stop(unit)

    async def _restore(self, name: str, unit: str, state: str) -> None:
        record = self._remembered(name)
        if state in ("", *OVER):
            known = await self._failed(unit) if state == "failed" else {}
            if record is None:
                records.remove(self._root, name)  # if it is there, nobody can read it
            else:
                self._takes.add_ended(record if record.over else records.ended(record, known))
        elif state == "activating" and (record is None or record.over):
            await self._units.stop(unit)  # a launch that was cut short
        else:
            await self._take(name, unit, record)

    async def _take(self, name: str, unit: str, record: GuestRecord | None) -> None:
        watch = await self._units.follow(unit)
        try:
            async with self._turns.next():
                known = await self._units.settle(watch)
            if watch.ended.done():  # a moment ago
                await watch.close()
                await self._restore(name, unit, known["ActiveState"])
                return
            if record is None or record.pid != known.get("MainPID"):
                record = await adopt(self._root, self._units, name, known)
            if record is not None:
                if known["ActiveState"] == "deactivating":  # whoever began it
                    record = records.stopping(record, UNIT, STOP_LIMIT)
                self._takes.add(record, watch)
                return
        except BaseException:
            await watch.close()
            raise
        await watch.close()

    async def _failed(self, unit: str) -> dict[str, Any]:
        """The properties of a unit that has failed, which systemd is then told to forget."""
        async with self._turns.next():
            known = await self._units.properties(unit)
        await self._units.reset_failed(unit)
        return known

    def _remembered(self, name: str) -> GuestRecord | None:
        try:
            return records.load(self._root, name)
        except (Malformed, OSError) as error:
            log.warning(f"The record of the guest {name} is of no use, and is made anew or removed: {error}")
            return None
