# SPDX-License-Identifier: LGPL-2.1-or-later
"""The guests that run: found again after a restart, followed to their end, stopped and killed."""

from __future__ import annotations

import os
import re
import signal
import stat
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from nestd import log, tasks
from nestd.errors import Busy, CallFailed, Failed, GuestExists, GuestNotFound, Malformed, Timeout
from nestd.guestmodel import GuestRecord, GuestState
from nestd.guests import places, records
from nestd.host.root import Root
from nestd.host.units import Units, UnitWatch

# Seconds: systemd itself kills what does not end within 10.
_END_LIMIT = 20.0
_CONSOLE_LOG_LIMIT = 1 << 20


class _Guest:
    def __init__(self, record: GuestRecord, watch: UnitWatch) -> None:
        self.record = record
        self.watch = watch
        self.gone = tasks.Event()


class Registry:
    """What runs. Callbacks are called on the loop; `on_exited` gets the last record and systemd's Result."""

    def __init__(
        self,
        root: Root,
        units: Units,
        on_added: Callable[[GuestRecord], None],
        on_changed: Callable[[GuestRecord], None],
        on_exited: Callable[[GuestRecord, str], None],
    ) -> None:
        self._root = root
        self._units = units
        self._on_added = on_added
        self._on_changed = on_changed
        self._on_exited = on_exited
        self._guests: dict[str, _Guest] = {}
        self._reserved: set[str] = set()
        self._tasks: set[tasks.Task[None]] = set()

    @property
    def records(self) -> tuple[GuestRecord, ...]:
        """All guests, by name."""
        return tuple(self._guests[name].record for name in sorted(self._guests))

    def get(self, name: str) -> GuestRecord:
        """The guest of that name. GuestNotFound."""
        return self._guest(name).record

    @contextmanager
    def reserve(self, name: str) -> Iterator[None]:
        """Keep others from using a name while its guest starts. GuestExists."""
        if name in self._guests or name in self._reserved:
            raise GuestExists(f"There is a guest {name} already: stop it, or choose another name.")
        self._reserved.add(name)
        try:
            yield
        finally:
            self._reserved.discard(name)

    def add(self, record: GuestRecord, watch: UnitWatch) -> None:
        """Take over a running guest and the watch of its unit. OSError: its record cannot be kept."""
        records.save(self._root, record)
        self._guests[record.name] = _Guest(record, watch)
        self._on_added(record)
        watch.ended.add_done_callback(lambda ended: self._ended(record.name, ended))

    async def restore(self) -> None:
        """Find the guests of an earlier nestd again; forget those that are gone. CallFailed, OSError."""
        units = await self._units.matching(places.UNIT_PATTERN)
        for name in self._recorded():
            if places.unit(name) not in units:
                self._drop(name)
        for unit, state in units.items():
            name = places.name_of(unit)
            if name in self._guests or not re.fullmatch(places.NAME_PATTERN, name):
                continue
            if state == "failed":
                self._drop(name)
                await self._units.reset_failed(unit)
            elif state != "inactive":
                await self._restore(name, unit)

    async def stop(self, name: str, limit: float = 30.0) -> None:
        """Press the power button; after `limit` seconds, or if it cannot be pressed, stop the unit.

        Returns when the guest is gone. GuestNotFound, Timeout, CallFailed.
        """
        guest = self._guest(name)
        self._set_state(guest, GuestState.STOPPING)
        if not await self._press(guest) or not await _within(guest.gone, limit):
            await self._units.stop(guest.record.unit)
            await self._await_end(guest)

    async def kill(self, name: str) -> None:
        """End QEMU at once; returns when the guest is gone. GuestNotFound, Timeout, CallFailed."""
        guest = self._guest(name)
        await self._units.kill(guest.record.unit, signal.SIGKILL)
        await self._await_end(guest)

    def open_console(self, name: str) -> int:
        """A descriptor of the guest's console, for the caller to close. GuestNotFound, Busy, Failed."""
        from nestd.host.qmpsocket import NotTheGuest, connect  # noqa: PLC0415 -- only where there are guests

        record = self.get(name)
        try:
            console = connect(self._root.path(places.console(name)), record.owner)
        except BlockingIOError as error:
            raise Busy(f"The console of {name} is in use: leave it there first.") from error
        except (OSError, NotTheGuest) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise Failed(f"The console of {name} cannot be opened: {why}.") from error
        console.setblocking(True)
        return console.detach()

    def console_log(self, name: str) -> bytes:
        """The first MiB of what the guest wrote to its console. GuestNotFound, Failed.

        It lies in the guest's own mount namespace, which /proc/PID/root leads to (proc(5)); this
        needs CAP_SYS_PTRACE.
        """
        record = self.get(name)
        path = self._root.path(f"/proc/{record.pid}/root{places.console_log(name)}")
        try:
            # Nor a FIFO nor a link of the user's making.
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                found = os.fstat(file)
                if not stat.S_ISREG(found.st_mode) or found.st_uid != record.owner:
                    raise Failed(f"The console's log of {name} was replaced by something else.")
                return os.read(file, _CONSOLE_LOG_LIMIT)
            finally:
                os.close(file)
        except OSError as error:
            raise Failed(f"The console's log of {name} cannot be read: {error.strerror}.") from error

    async def close(self) -> None:
        """Stop following; the guests go on."""
        for guest in self._guests.values():
            await guest.watch.close()
        self._guests.clear()
        await tasks.wait(self._tasks)

    def _guest(self, name: str) -> _Guest:
        if name not in self._guests:
            raise GuestNotFound(f"There is no guest {name!a}: `nestctl list` names those that run.")
        return self._guests[name]

    async def _restore(self, name: str, unit: str) -> None:
        from nestd.guests.adopt import adopt  # noqa: PLC0415 -- only where there are guests

        watch = await self._units.follow(unit)
        try:
            known = await self._units.properties(unit)
            watch.settle(known)
            record = self._remembered(name)
            if record is None or record.pid != known.get("MainPID"):
                record = await adopt(self._root, self._units, name, known)
            if record is not None:
                self.add(record, watch)
                return
        except (OSError, CallFailed) as error:
            log.error(f"The guest {name} runs on, but could not be taken up again: {error}")
        except BaseException:
            await watch.close()
            raise
        await watch.close()

    def _recorded(self) -> tuple[str, ...]:
        try:
            return records.names(self._root)
        except OSError as error:
            log.error(f"The records of guests cannot be read: {error}")
            return ()

    def _drop(self, name: str) -> None:
        try:
            records.remove(self._root, name)
        except OSError as error:
            log.warning(f"The record of the guest {name}, which is gone, could not be removed: {error}")

    def _remembered(self, name: str) -> GuestRecord | None:
        try:
            return records.load(self._root, name)
        except (Malformed, OSError) as error:
            log.warning(f"The record of the guest {name} is put aside: {error}")
            return None

    async def _press(self, guest: _Guest) -> bool:
        from nestd.host.qmpsocket import NotTheGuest, QmpRefused, QmpSocket, connect  # noqa: PLC0415 -- as above

        record = guest.record
        try:
            async with QmpSocket(connect(self._root.path(places.qmp(record.name)), record.owner)) as qmp:
                await qmp.execute("system_powerdown")
        except (ConnectionResetError, BrokenPipeError):
            return True  # QEMU hung up: it is ending already
        except (OSError, NotTheGuest, QmpRefused, Malformed) as error:
            log.warning(f"The power button of {record.name} cannot be pressed, its unit is stopped: {error}")
            return False
        return True

    async def _await_end(self, guest: _Guest) -> None:
        if not await _within(guest.gone, _END_LIMIT):
            raise Timeout(
                f"{guest.record.unit} did not end within {_END_LIMIT:g} s: see `systemctl status` of it."
            )

    def _set_state(self, guest: _Guest, state: GuestState) -> None:
        if guest.record.state is not state:
            guest.record = guest.record._replace(state=state)
            self._on_changed(guest.record)

    def _ended(self, name: str, ended: tasks.Future[Mapping[str, Any]]) -> None:
        guest = self._guests.pop(name, None)
        if guest is None or ended.cancelled():
            return
        known = ended.result()
        result = str(known.get("Result", "success"))
        state = GuestState.EXITED if result == "success" else GuestState.FAILED
        status = int(known.get("ExecMainStatus", 0))
        guest.record = guest.record._replace(state=state, pid=0, exit_status=status)
        self._keep(self._forget(guest))
        self._on_exited(guest.record, result)

    async def _forget(self, guest: _Guest) -> None:
        """Leave nothing of it; only then is it gone for those who wait."""
        try:
            records.remove(self._root, guest.record.name)
            await self._units.reset_failed(guest.record.unit)
            await guest.watch.close()
        except (OSError, CallFailed) as error:
            log.warning(f"What is left of the guest {guest.record.name} could not be removed: {error}")
        finally:
            guest.gone.set()

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = tasks.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _within(event: tasks.Event, limit: float) -> bool:
    try:
        async with tasks.timeout(limit):
            await event.wait()
    except TimeoutError:
        return False
    return True
