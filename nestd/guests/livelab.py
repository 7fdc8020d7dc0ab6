# SPDX-License-Identifier: LGPL-2.1-or-later
"""One lab and what there is of it: its record, its segment, its guests, its disks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from nestd import log, tasks
from nestd.errors import BusError, Busy, CallFailed, Failed, GuestExists, GuestNotFound, LaunchFailed
from nestd.guestmodel import GuestRecord, GuestSpec
from nestd.guests import lab as values
from nestd.guests import labdisks, labstore, places
from nestd.guests.lab import Lab, LabView
from nestd.guests.launch import KnowsAccounts, Launcher
from nestd.guests.registry import Registry
from nestd.guests.segment import Segment
from nestd.host.accounts import Account
from nestd.host.commands import Commands
from nestd.host.root import Root
from nestd.host.units import OVER, Units
from nestd.model import Extension
from nestd.text import qemu

# Seconds that a guest which joined a lab that is removed has to power off: its disks stay.
_JOINED_LIMIT = 30.0


class Ground(NamedTuple):
    """What all labs stand on. `path` is where QEMU is looked for, as PATH has it."""

    root: Root
    commands: Commands
    units: Units
    accounts: KnowsAccounts
    registry: Registry
    launcher: Callable[[], Launcher]
    path: str


class LiveLab:
    """A lab. Each of its methods is called by one task at a time: by who is `alone` with it."""

    def __init__(self, ground: Ground, lab: Lab) -> None:
        self._ground = ground
        self.lab = lab
        self.segment = Segment(ground.root, ground.commands, ground.units, ground.path, lab.name, lab.owner)
        self._busy = ""
        self._idle = tasks.Event()
        self._idle.set()

    @property
    def busy(self) -> bool:
        """Whether somebody is alone with it."""
        return bool(self._busy)

    @contextmanager
    def alone(self, doing: str) -> Iterator[None]:
        """Be the only one who does something with it. Busy: it is being `doing` (started, stopped ...)."""
        if self._busy:
            raise Busy(f"The lab {self.lab.name} is being {self._busy}: try again when that is done.")
        self._busy = doing
        self._idle.clear()
        try:
            yield
        finally:
            self._busy = ""
            self._idle.set()

    async def idle(self, *doings: str) -> None:
        """Return when nobody is alone with it, or is who does something else than `doings`."""
        while self._busy and (not doings or self._busy in doings):
            await self._idle.wait()

    def running(self) -> frozenset[str]:
        """The guests that are in it now."""
        return frozenset(record.name for record in self._ground.registry.records if self._holds(record))

    def view(self) -> LabView:
        """The lab as the bus shows it."""
        return values.view(self.lab, self.running(), linked=self.segment.runs)

    def note(self, **changes: Any) -> None:
        """Remember it otherwise. LaunchFailed: it cannot be kept."""
        lab = self.lab._replace(**changes)
        try:
            labstore.save(self._ground.root, lab)
        except OSError as error:
            raise LaunchFailed(
                f"The record of the lab {lab.name} cannot be kept: {error.filename}: {error.strerror}."
            ) from error
        self.lab = lab

    async def account(self) -> Account:
        """Whom its guests run as. Failed: the account is gone, or is another one now."""
        account = await tasks.to_thread(self._ground.accounts.by_name, self.lab.user)
        if account is None or account.uid != self.lab.owner:
            raise Failed(
                f"The lab {self.lab.name} belongs to the user {self.lab.user} with the id {self.lab.owner}, "
                "who is not here any more: remove the lab."
            )
        return account

    async def run(self, numbers: Iterable[int], extension: Extension, *, new: bool) -> None:
        """Start the segment and these nodes; `new`: on disks of their own that are made now.

        What Launcher.launch raises; what was started until then is left running.
        """
        await self.segment.start(await self.account())
        for number in numbers:
            spec = values.spec(self.lab, number, self._ground.root.path("/").rstrip("/"))
            await self.launch(spec if new else spec._replace(overlays=()), extension)

    async def launch(self, spec: GuestSpec, extension: Extension) -> GuestRecord:
        """Start a guest that is plugged into the segment. What Launcher.launch raises."""
        with self._ground.registry.reserve(spec.name):
            pass  # before one that runs under this name is unplugged
        with await self.segment.plug(spec.name) as end:
            return await self._ground.launcher().launch(spec, extension, segment=end.fileno())

    async def join(self, spec: GuestSpec, extension: Extension) -> GuestRecord:
        """`launch` a guest that is none of the nodes; it has its address for as long as it runs.

        GuestExists, besides: it is called as one of them.
        """
        if spec.name in (values.node(self.lab, number) for number in self.lab.numbers):
            raise GuestExists(f"{spec.name} is a node of the lab {self.lab.name}: choose another name.")
        running = self.running()
        number = values.number_for(self.lab, spec.name, running)
        gone = [name for name in self.lab.joined if name not in running]
        await self.segment.unplug(gone)
        joined = {name: other for name, other in self.lab.joined.items() if name in running}
        self.note(joined={**joined, spec.name: number})
        return await self.launch(spec._replace(network=values.plug(self.lab, number)), extension)

    async def end(self, guests: Iterable[str], limit: float) -> None:
        """Have these guests switched off, all at once, `limit` seconds each. Timeout, Failed."""
        registry = self._ground.registry
        work = [tasks.create_task(registry.stop(guest, limit)) for guest in guests]
        await tasks.wait(work)
        failures = [failure for task in work if (failure := task.exception()) is not None]
        for failure in failures:
            if not isinstance(failure, GuestNotFound):  # it has ended by itself
                raise failure

    async def halt(self, limit: float) -> None:
        """`end` all that run, then the segment. Timeout, Failed."""
        await self.end(self.running(), limit)
        try:
            await self.segment.stop()
        except CallFailed as error:
            raise Failed(
                f"The guests of the lab {self.lab.name} have ended, but systemd does not stop its segment: "
                f"{error.text}. Stop the lab again."
            ) from error

    async def end_nodes(self, numbers: Iterable[int]) -> None:
        """Leave nothing of these nodes, found again or not. Timeout, Failed, CallFailed."""
        running = self.running()
        names = [values.node(self.lab, number) for number in numbers]
        await self.end([name for name in names if name in running], 0.0)
        for unit in await self._lost(names):
            await self._ground.units.stop(unit)

    async def forsaken(self) -> bool:
        """Whether no unit of a guest of it runs, found again or not. CallFailed."""
        names = [*self.lab.joined, *(values.node(self.lab, number) for number in self.lab.numbers)]
        return not self.running() and not await self._lost(names)

    async def unstart(self) -> None:
        """Stop again what was begun to be started, and say so if that fails."""
        try:
            await self.end_nodes(self.lab.begun)
            if await self.forsaken():
                await self.segment.stop()
            self.note(doing="", begun=())
        except (BusError, CallFailed) as error:
            log.error(f"What was started of the lab {self.lab.name} could not be stopped again: {error}")

    async def erase(self) -> None:
        """Leave nothing of it. Timeout, Failed: the record stays, and says what was being done."""
        root, units, name = self._ground.root, self._ground.units, self.lab.name
        try:
            await self.end([guest for guest in self.running() if guest in self.lab.joined], _JOINED_LIMIT)
            await self.end_nodes(self.lab.numbers)
            await self.segment.stop()
            await labdisks.remove(root, units, name)
            labstore.remove(root, name)
        except (CallFailed, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise Failed(f"The lab {name} is only half removed: {why}. Remove it again.") from error

    def _holds(self, record: GuestRecord) -> bool:
        return record.lab == self.lab.name and record.owner == self.lab.owner

    async def _lost(self, names: Iterable[str]) -> list[str]:
        """The units of guests of it that run and that nobody has found again. CallFailed."""
        units, known = self._ground.units, {record.name for record in self._ground.registry.records}
        states = await units.matching(places.UNIT_PATTERN)
        found = []
        for unit in (places.unit(name) for name in names if name not in known):
            if states.get(unit, "inactive") not in OVER:
                properties = await units.properties(unit)
                # It may have ended meanwhile: then systemd knows nothing of it any more.
                command = properties.get("ExecStart")
                shape = qemu.shape(command[0][1]) if command else None
                if shape and shape.lab == self.lab.name and properties.get("User") == str(self.lab.owner):
                    found.append(unit)
        return found
