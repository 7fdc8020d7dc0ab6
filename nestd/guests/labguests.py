# SPDX-License-Identifier: LGPL-2.1-or-later
"""The guests of a lab, and their end: those that nestd follows, and units that it has not found again."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from nestd import tasks
from nestd.errors import CallFailed, Failed, GuestNotFound
from nestd.guestmodel import GuestRecord
from nestd.guests import lab as values
from nestd.guests import places, qemuunit
from nestd.guests.lab import Lab
from nestd.guests.registry import Registry
from nestd.host.units import OVER, Units
from nestd.text import qemu


class LabGuests:
    """The guests of what `lab` gives, which is the lab as it is now."""

    def __init__(self, registry: Registry, units: Units, lab: Callable[[], Lab]) -> None:
        self._registry = registry
        self._units = units
        self._lab = lab

    @property
    def names(self) -> list[str]:
        """Those that may be in it: its nodes, and who has joined."""
        lab = self._lab()
        return [*(values.node(lab, number) for number in lab.numbers), *lab.joined]

    def running(self) -> frozenset[str]:
        """Those that are in it now."""
        return frozenset(record.name for record in self._registry.records if self._holds(record))

    async def found(self) -> None:
        """Return when none of them is looked for any more as an earlier nestd's, found or not. Busy."""
        await self._registry.found(self.names)

    async def forsaken(self) -> bool:
        """Whether no unit of any of them runs, found again or not. CallFailed."""
        return not self.running() and not await self._lost(self.names)

    async def check(self) -> None:
        """Return if nestd follows all that run. Failed: it does not, or systemd does not tell."""
        try:
            lost = await self._lost(self.names)
        except CallFailed as error:
            raise Failed(
                f"systemd does not tell which guests of the lab {self._lab().name} run: {error.text}."
            ) from error
        if lost:
            raise Failed(
                f"{lost[0]} runs, but nestd could not find it again (`journalctl -u nestd` says why): "
                "stop the lab, then start it."
            )

    async def switch_off(self, names: Iterable[str], limit: float) -> None:
        """Press the power buttons of these, all at once, and give each `limit` seconds. Timeout, Failed."""
        work = [tasks.create_task(self._registry.stop(name, limit)) for name in names]
        await tasks.wait(work)
        failures = [failure for task in work if (failure := task.exception()) is not None]
        for failure in failures:
            if not isinstance(failure, GuestNotFound):  # it has ended by itself
                raise failure

    async def end(self, names: Iterable[str]) -> None:
        """Leave nothing of these, found again or not. Timeout, Failed, CallFailed."""
        names, running = list(names), self.running()
        await self.switch_off([name for name in names if name in running], 0.0)
        for unit in await self._lost(names):
            watch = await self._units.follow(unit)
            try:
                await qemuunit.remove(self._units, watch)
            finally:
                await watch.close()

    def _holds(self, record: GuestRecord) -> bool:
        lab = self._lab()
        return record.lab == lab.name and record.owner == lab.owner

    async def _lost(self, names: Iterable[str]) -> list[str]:
        """The units of those that run and that nobody has found again. CallFailed."""
        lab, known = self._lab(), {record.name for record in self._registry.records}
        states = await self._units.matching(places.UNIT_PATTERN)
        found = []
        for unit in (places.unit(name) for name in names if name not in known):
            if states.get(unit, "inactive") not in OVER:
                properties = await self._units.properties(unit)
                # It may have ended meanwhile: then systemd knows nothing of it any more.
                command = properties.get("ExecStart")
                shape = qemu.shape(command[0][1]) if command else None
                if shape and shape.lab == lab.name and properties.get("User") == str(lab.owner):
                    found.append(unit)
        return found
