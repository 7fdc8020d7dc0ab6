# SPDX-License-Identifier: LGPL-2.1-or-later
"""One lab and what there is of it: its record, its segment, its guests, its disks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from nestd import log, tasks
from nestd.errors import BusError, Busy, CallFailed, Failed, LaunchFailed
from nestd.guestmodel import GuestRecord, GuestSpec
from nestd.guests import lab as values
from nestd.guests import labdisks, labstore, refusals
from nestd.guests.lab import Lab, LabView
from nestd.guests.labguests import LabGuests
from nestd.guests.launch import KnowsAccounts, Launcher
from nestd.guests.registry import Registry
from nestd.guests.segment import Segment
from nestd.host.accounts import Account
from nestd.host.commands import Commands
from nestd.host.root import Root
from nestd.host.units import Units
from nestd.model import Extension

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
        self.guests = LabGuests(ground.registry, ground.units, lambda: self.lab)
        self._busy = ""
        self._idle = tasks.Event()
        self._idle.set()
        self._noting: set[tasks.Task[None]] = set()

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

    def view(self) -> LabView:
        """The lab as the bus shows it."""
        return values.view(self.lab, self.guests.running(), linked=self.segment.runs)

    async def note(self, **changes: Any) -> None:
        """Remember it otherwise. LaunchFailed: it cannot be kept.

        Once begun it goes to its end, whoever waits; what comes next waits for that.
        """
        await tasks.wait(self._noting)
        task = tasks.create_task(self._note(self.lab._replace(**changes)))
        self._noting = {task}
        await task

    async def _note(self, lab: Lab) -> None:
        try:
            # Up to a MiB with its fsync, and other writers may have filled the disk's queue.
            await tasks.to_thread(labstore.save, self._ground.root, lab)
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
            if new:
                await self.launch(spec, extension)
                continue
            try:
                await self.launch(spec._replace(overlays=()), extension)
            except LaunchFailed as error:
                if remedy := refusals.lost_disk(self.lab.name, spec, str(error)):
                    raise LaunchFailed(f"{error}\n{remedy}") from error
                raise

    async def launch(self, spec: GuestSpec, extension: Extension) -> GuestRecord:
        """Start a guest that is plugged into the segment. What Launcher.launch raises."""
        with self._ground.registry.reserve(spec.name):
            pass  # before one that runs under this name is unplugged
        with await self.segment.plug(spec.name) as end:
            return await self._ground.launcher().launch(spec, extension, segment=end.fileno())

    async def join(self, spec: GuestSpec, extension: Extension) -> GuestRecord:
        """`launch` a guest that is none of the nodes; it has its address for as long as it runs."""
        running = self.guests.running()
        number = values.number_for(self.lab, spec.name, running)
        gone = [name for name in self.lab.joined if name not in running]
        await self.segment.unplug(gone)
        joined = {name: other for name, other in self.lab.joined.items() if name in running}
        await self.note(joined={**joined, spec.name: number})
        return await self.launch(spec._replace(network=values.plug(self.lab, number)), extension)

    async def halt(self, limit: float) -> None:
        """Switch all of it off, `limit` seconds after the power buttons at the latest. Timeout, Failed."""
        await self._look_for()
        await self.guests.switch_off(self.guests.running(), limit)
        try:
            await self.guests.end(self.guests.names)
            await self.segment.stop()
        except CallFailed as error:
            raise Failed(
                f"systemd does not stop all of the lab {self.lab.name}: {error.text}. Stop the lab again."
            ) from error

    async def unstart(self, begun: Iterable[int]) -> None:
        """Stop these nodes again, whose start was begun, and say so if that fails."""
        try:
            await self.guests.end(values.node(self.lab, number) for number in begun)
            if await self.guests.forsaken():
                await self.segment.stop()
            await self.note(doing="", begun=())
        except (BusError, CallFailed) as error:
            log.error(f"What was started of the lab {self.lab.name} could not be stopped again: {error}")

    async def erase(self) -> None:
        """Leave nothing of it. Timeout, Failed: the record stays, and says what was being done."""
        root, units, name = self._ground.root, self._ground.units, self.lab.name
        try:
            await self._look_for()
            running = self.guests.running()
            await self.guests.switch_off([name for name in self.lab.joined if name in running], _JOINED_LIMIT)
            await self.guests.end(self.guests.names)
            await self.segment.stop()
            await labdisks.remove(root, units, name)
            await tasks.wait(self._noting)
            labstore.remove(root, name)
        except (CallFailed, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise Failed(f"The lab {name} is only half removed: {why}. Remove it again.") from error

    async def _look_for(self) -> None:
        """Wait for guests that are still to be found again: then they have a power button."""
        with suppress(Busy):  # without one, too, they can be ended
            await self.guests.found()
