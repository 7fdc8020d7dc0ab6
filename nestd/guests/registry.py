# SPDX-License-Identifier: LGPL-2.1-or-later
"""The guests by their names: those that run, and those that have ended lately."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from nestd import log, tasks
from nestd.errors import Busy, GuestExists, GuestNotFound
from nestd.guestmodel import GuestRecord
from nestd.guests import places, records
from nestd.guests.ended import Ended
from nestd.host.commands import Commands
from nestd.host.root import Root
from nestd.host.services import Bus
from nestd.host.units import Units, UnitWatch

if TYPE_CHECKING:
    from nestd.guests.console import Consoles
    from nestd.guests.lastwords import LastWords
    from nestd.guests.life import Life
    from nestd.guests.restore import Restorer

# Seconds that finding the guests of an earlier nestd may keep everybody waiting; what takes longer, as its
# QEMU does not answer, comes when it comes.
_PATIENCE = 5.0
# Seconds that somebody who cannot go on before waits for it: more than guests/adopt.py takes.
_FINDING = 20.0


class Told(Protocol):
    """Who is told of guests, on the loop."""

    def added(self, record: GuestRecord) -> None:
        """It is there: it runs, or has ended in an earlier nestd's time."""

    def changed(self, record: GuestRecord) -> None:
        """It is otherwise than before."""

    def exited(self, record: GuestRecord) -> None:
        """It has just ended, and is kept for a while."""

    def forgotten(self, record: GuestRecord) -> None:
        """It is kept no more; it had ended before."""


class Registry:
    """What runs, and what has ended in the last minutes (guests/ended.py)."""

    def __init__(self, root: Root, units: Units, commands: Commands, bus: Bus, told: Told) -> None:
        self._root = root
        self._units = units
        self._commands = commands
        self._bus = bus
        self._told = told
        self._lives: dict[str, Life] = {}
        self._ended = Ended(root, told.forgotten)
        self._words: LastWords | None = None
        self._consoles: Consoles | None = None
        self._reserved: set[str] = set()
        self._finding: dict[str, tasks.Task[None]] = {}
        self._tasks: set[tasks.Task[None]] = set()

    @property
    def records(self) -> tuple[GuestRecord, ...]:
        """All guests that run, by name."""
        return tuple(self._lives[name].record for name in sorted(self._lives))

    def get(self, name: str) -> GuestRecord:
        """The guest of that name that runs. GuestNotFound."""
        return self._life(name).record

    def find(self, name: str) -> GuestRecord:
        """The guest of that name, whether it runs or has ended lately. GuestNotFound."""
        return self._ended.get(name) or self.get(name)

    @contextmanager
    def reserve(self, name: str) -> Iterator[None]:
        """Keep others from using a name while its guest starts. GuestExists."""
        if name in self._lives or name in self._reserved:
            raise GuestExists(f"There is a guest {name} already: stop it, or choose another name.")
        self._reserved.add(name)
        try:
            yield
        finally:
            self._reserved.discard(name)

    def add(self, record: GuestRecord, watch: UnitWatch) -> None:
        """Take over a running guest and the watch of its unit. OSError: its record cannot be kept."""
        from nestd.guests.life import Life  # noqa: PLC0415 -- only where there are guests
        from nestd.host import machined  # noqa: PLC0415 -- as above

        records.save(self._root, record)
        self._ended.displace(record.name)
        life = self._lives[record.name] = Life(self._root, self._units, record, watch, self._told.changed)
        self._told.added(record)
        watch.ended.add_done_callback(lambda ended: self._over(life, ended))
        self._run(machined.register(self._bus, record.name, record.pid))
        life.resume()

    def add_ended(self, record: GuestRecord) -> None:
        """Take over what is known of a guest that ended in an earlier nestd's time."""
        if self._ended.keep(record):
            self._told.added(record)
            if not (record.result and record.last_words):
                self._ask(record)

    async def restore(self) -> None:
        """Find the guests of an earlier nestd again. CallFailed, OSError: none can be found."""
        self._sweep()
        units = await self._units.matching(places.UNIT_PATTERN)
        states = {places.name_of(unit): state for unit, state in units.items()}
        states = dict.fromkeys(self._recorded(), "") | states
        if not states:
            return
        from nestd.guests.restore import Restorer  # noqa: PLC0415 -- only where there are guests

        restorer = Restorer(self._root, self._units, self)
        order = sorted(states.items())
        self._finding = {name: self._run(self._restore(restorer, name, state)) for name, state in order}
        await tasks.wait(self._finding.values(), _PATIENCE)

    async def found(self, names: Iterable[str], limit: float = _FINDING) -> None:
        """Return when none of these guests of an earlier nestd is looked for any more, found or not. Busy."""
        work = {name: self._finding[name] for name in names if name in self._finding}
        await tasks.wait(work.values(), limit)
        if late := [name for name, task in work.items() if not task.done()]:
            raise Busy(f"nestd is still finding out what became of {', '.join(late)}: try again in a moment.")

    async def stop(self, name: str, limit: float = 30.0) -> None:
        """Press the power button; after `limit` seconds, or if it cannot be pressed, stop the unit.

        Returns when the guest is gone; goes on to its end whoever waits. GuestNotFound, Timeout, Failed.
        """
        await self._life(name).stop(limit)

    async def kill(self, name: str) -> None:
        """End QEMU at once; returns when the guest is gone. GuestNotFound, Timeout, Failed."""
        await self._life(name).kill()

    async def open_console(self, name: str) -> int:
        """A descriptor of the guest's console, for the caller to close. GuestNotFound, Busy, Failed."""
        from nestd.guests.console import Consoles  # noqa: PLC0415 -- only where there are guests

        record = self.get(name)
        self._consoles = self._consoles or Consoles(self._root)
        return await self._consoles.open(record)

    def console_log(self, name: str) -> bytes:
        """The first MiB of what the guest wrote to its console. GuestNotFound, Failed."""
        from nestd.guests import consolelog  # noqa: PLC0415 -- only where there are guests

        return consolelog.read(self._root, self.get(name))

    async def close(self) -> None:
        """Stop following; the guests go on."""
        lives, self._lives = list(self._lives.values()), {}
        for life in lives:
            await life.close()
        for task in self._tasks:
            task.cancel()
        await tasks.wait(self._tasks)
        if self._words is not None:
            await self._words.close()
        if self._consoles is not None:
            await self._consoles.close()
        self._ended.close()

    def _life(self, name: str) -> Life:
        if name in self._lives:
            return self._lives[name]
        if self._ended.get(name):
            raise GuestNotFound(f"The guest {name} has ended: `nestctl show {name}` tells how.")
        from nestd.guests.checks import shown  # noqa: PLC0415 -- only where somebody errs

        raise GuestNotFound(f"There is no guest {shown(name)}: `nestctl list` names those that run.")

    async def _restore(self, restorer: Restorer, name: str, state: str) -> None:
        try:
            with self.reserve(name):
                await restorer.restore(name, state)
        finally:
            # What went wrong in it is told when nobody holds the task any more.
            del self._finding[name]

    def _sweep(self) -> None:
        try:
            if self._root.names(places.HANDOVER):
                from nestd.guests import handover  # noqa: PLC0415 -- only where an nestd was killed

                handover.sweep(self._root)
        except OSError as error:
            log.warning(f"What an earlier nestd handed to guests may still be there: {error}")

    def _recorded(self) -> tuple[str, ...]:
        try:
            return records.names(self._root)
        except OSError as error:
            log.error(f"The records of guests cannot be read: {error}")
            return ()

    def _over(self, life: Life, ended: tasks.Future[Mapping[str, Any]]) -> None:
        if ended.cancelled() or self._lives.get(life.record.name) is not life:
            return
        record = life.end(ended.result())
        del self._lives[record.name]
        kept = self._ended.keep(record)
        self._told.exited(record)
        self._run(life.bury())
        if kept:
            self._ask(record)
        else:  # the clock has leapt
            self._told.forgotten(record)

    def _ask(self, record: GuestRecord) -> None:
        """Look up what its QEMU said last, and how it ended if nobody saw it."""
        from nestd.guests.lastwords import LastWords  # noqa: PLC0415 -- only where there are guests

        if self._words is None:
            self._words = LastWords(self._commands, self._kept, self._learned)
        self._words.ask(record)

    def _kept(self, record: GuestRecord) -> bool:
        return self._ended.get(record.name) == record

    def _learned(self, record: GuestRecord, told: GuestRecord) -> None:
        if told != record and self._ended.learn(record, told):
            self._told.changed(told)

    def _run(self, work: Coroutine[Any, Any, None]) -> tasks.Task[None]:
        task = tasks.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
