# SPDX-License-Identifier: LGPL-2.1-or-later
"""Labs: created, started, stopped, removed. What fails leaves nothing; what was cut short is settled."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from nestd import log, tasks
from nestd.errors import AccessDenied, BusError, CallFailed, Failed, LabExists, LaunchFailed
from nestd.guestmodel import GuestRecord, GuestSpec
from nestd.guests import lab as values
from nestd.guests import labdisks, lablimits, labplaces, labstore
from nestd.guests.lab import Lab, LabView
from nestd.guests.labroll import Roll, Told
from nestd.guests.livelab import Ground, LiveLab
from nestd.model import Extension

# What somebody who starts, stops or removes a lab waits for.
_JOINED, _SETTLED = "joined", "settled"


class Labs:
    """What is done to labs."""

    def __init__(self, ground: Ground, told: Told) -> None:
        self._ground = ground
        self._roll = Roll(told)
        self._creating: dict[str, int] = {}  # and whose
        self._tasks: set[tasks.Task[None]] = set()

    def get(self, name: str) -> LabView:
        """The lab of that name. LabNotFound."""
        return self._roll.get(name).view()

    def check_guest(self, name: str) -> None:
        """Return if a guest that is no node may be called so. GuestExists: a lab's node is."""
        self._roll.check_guest(name)

    async def restore(self) -> None:
        """Take up the labs of an earlier nestd, each for itself. OSError: what there was cannot be told."""
        kept = await tasks.to_thread(labstore.load_all, self._ground.root)
        await tasks.wait([self._run(self._take_up(lab)) for lab in kept])

    def settle(self) -> None:
        """Begin to settle what an earlier nestd has left half done."""
        for live in self._roll:
            if live.lab.doing or live.segment.runs:
                self._run(self._settle(live))

    def refresh(self) -> None:
        """Look at the guests again, as one has changed."""
        for live in self._roll:
            self._look(live)

    async def create(self, name: str, user: str, options: Mapping[str, Any], extension: Extension) -> LabView:
        """Make a lab and start its nodes; `options` are CreateLab's, without `user`.

        LabExists, LimitsExceeded, Failed, InvalidArgs, and what Launcher.launch raises; then, and when
        cancelled, nothing of it is left.
        """
        if self._roll.has(name) or name in self._creating:
            raise LabExists(f"There is a lab {name} already: remove it, or choose another name.")
        self._creating[name] = -1
        try:
            account, _ = await self._ground.launcher().account(user)
            self._creating[name] = account.uid
            owners = [*(each.lab.owner for each in self._roll), *self._creating.values()]
            lablimits.check(self._ground.root, name, account.uid, owners)
            live = LiveLab(self._ground, values.new(name, account.uid, user, options))
            await labdisks.remove(self._ground.root, self._ground.units, name)
            try:
                await live.note()
                await live.run(live.lab.numbers, extension, new=True)
                await live.note(doing="", begun=())
            except BaseException:
                await self._undo(self._uncreate(live))
                raise
        finally:
            del self._creating[name]
        self._add(live)
        self._look(live)  # its guests may have ended before anybody looked
        return live.view()

    async def start(self, name: str, extension: Extension) -> None:
        """Start the nodes that do not run. LabNotFound, Busy, Failed, and what Launcher.launch raises.

        Then those that it started are gone again.
        """
        live = await self._quiet(name)
        with self._alone(live, "started"):
            if live.lab.doing:
                raise Failed(f"The lab {name} is only half there: remove it.")
            await live.guests.found()
            await live.guests.check()
            running = live.guests.running()
            missing = tuple(each for each in live.lab.numbers if values.node(live.lab, each) not in running)
            if running and not live.segment.runs:
                raise Failed(
                    f"The segment of the lab {name} has ended under its guests: stop the lab, then start it."
                )
            try:
                await live.note(doing="start", begun=missing)
                await live.run(missing, extension, new=False)
                await live.note(doing="", begun=())
            except BaseException:
                # That the start is over may have been noted: then the lab does not know them any more.
                await self._undo(live.unstart(missing))
                raise

    async def stop(self, name: str, limit: float) -> None:
        """Press the power buttons; after `limit` seconds stop what still runs.

        LabNotFound, Busy, Timeout, Failed.
        """
        live = await self._quiet(name)
        with self._alone(live, "stopped"):
            await live.halt(limit)

    async def remove(self, name: str) -> None:
        """Stop a lab at once and forget it with its disks.

        LabNotFound, Busy, Timeout, Failed; LaunchFailed: that it begins cannot be noted.
        """
        await self._undo(self._remove(await self._quiet(name)))

    async def join(self, spec: GuestSpec, extension: Extension) -> GuestRecord:
        """Launch a guest into the running lab that its network names, of the same owner.

        LabNotFound, AccessDenied, GuestExists, and what Launcher.launch raises.
        """
        live = self._roll.get(spec.network.lab)
        self.check_guest(spec.name)
        account, _ = await self._ground.launcher().account(spec.user)
        if live.lab.owner != account.uid:
            raise AccessDenied(
                f"The lab {live.lab.name} belongs to somebody else: only its owner's guests join it."
            )
        await live.idle()
        with self._alone(live, _JOINED):
            if not live.segment.runs:
                raise LaunchFailed(
                    f"The lab {live.lab.name} does not run: start it first (`nestctl lab start`)."
                )
            await live.guests.found()
            return await live.join(spec, extension)

    async def close(self) -> None:
        """Stop following; the labs go on."""
        for task in self._tasks:
            task.cancel()
        await tasks.wait(self._tasks)
        for live in self._roll:
            await live.segment.close()

    async def _quiet(self, name: str) -> LiveLab:
        """The lab of that name, when nestd itself is done with what it does to it. LabNotFound."""
        await self._roll.get(name).idle(_JOINED, _SETTLED)
        return self._roll.get(name)

    async def _take_up(self, lab: Lab) -> None:
        live = LiveLab(self._ground, lab)
        try:
            await live.segment.find()
        except CallFailed as error:
            log.error(
                f"The lab {lab.name} is left out, and what it has left alone: systemd does not tell of "
                f"{labplaces.unit(lab.name)}: {error.text}"
            )
        else:
            self._add(live)

    def _add(self, live: LiveLab) -> None:
        live.segment.on_end = self.refresh
        self._roll.add(live)

    def _look(self, live: LiveLab) -> None:
        self._roll.look(live)
        if live.segment.runs and not live.guests.running() and not live.busy:
            self._run(self._settle(live))

    @contextmanager
    def _alone(self, live: LiveLab, doing: str) -> Iterator[None]:
        try:
            with live.alone(doing):
                yield
        finally:
            if live in self._roll:
                self._look(live)

    async def _undo(self, work: Coroutine[Any, Any, None]) -> None:
        """Go on to its end even if whoever waits for it is cancelled (again)."""
        await self._run(work)

    async def _remove(self, live: LiveLab) -> None:
        await live.idle(_JOINED, _SETTLED)  # who settles may have come before this task
        if live not in self._roll:
            return
        with self._alone(live, "removed"):
            await live.note(doing="remove")
            await live.erase()
            self._roll.remove(live)

    async def _uncreate(self, live: LiveLab) -> None:
        try:
            await live.erase()
        except BusError as error:
            log.error(
                f"The lab {live.lab.name} could not be made, and what is left of it not be removed: {error}"
            )
            try:
                # That it is made may have been noted, if whoever waited left just then.
                await live.note(doing="create")
            finally:
                self._add(live)

    async def _settle(self, live: LiveLab) -> None:
        """Undo what was cut short; with no guest left, end the segment."""
        await live.idle()
        name, doing = live.lab.name, live.lab.doing
        if live not in self._roll:
            return  # it was removed meanwhile
        try:
            with live.alone(_SETTLED):
                if doing in ("create", "remove"):
                    await live.erase()
                    self._roll.remove(live)
                elif doing == "start":
                    await live.unstart(live.lab.begun)
                elif await live.guests.forsaken():
                    await live.segment.stop()
        except (BusError, CallFailed) as error:
            log.error(
                f"The lab {name} was left in the middle of something, and could not be settled: {error}"
            )
            return
        self._roll.look(live)
        if doing:
            log.info(f"The lab {name} was settled: an earlier nestd ended before its {doing} did.")

    def _run(self, work: Coroutine[Any, Any, None]) -> tasks.Task[None]:
        task = tasks.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
