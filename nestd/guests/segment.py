# SPDX-License-Identifier: LGPL-2.1-or-later
"""A lab's segment: QEMU as a hub for frames (text/qemuhub.py), a unit of the lab's owner.

Each guest gets one end of a pair of sockets, the hub the other one over its monitor. So there is no bridge,
no device and no right of root's in it, nor does a guest need to connect(2); and the hub outlives nestd.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from nestd import tasks
from nestd.errors import CallFailed, LaunchFailed, Malformed
from nestd.guestmodel import GuestSpec
from nestd.guests import labplaces, programs, qemuunit, refusals, sandbox
from nestd.host import words
from nestd.host.accounts import Account
from nestd.host.commands import Commands
from nestd.host.qmpsocket import NotTheGuest, QmpRefused, QmpSocket
from nestd.host.root import Root
from nestd.host.units import JobFailed, UnitExists, Units, UnitWatch
from nestd.text import qemuhub
from nestd.wire.library import Variant

# Bytes: QEMU itself, and what nodes have sent and others have not read yet.
_MEMORY = 256 << 20
_TASKS = 16


class Segment:
    """The segment of the lab `lab`, whose owner is the uid `owner`. `path` is where QEMU is, as PATH has it.

    One task at a time.
    """

    def __init__(self, root: Root, commands: Commands, units: Units, path: str, lab: str, owner: int) -> None:
        self._root = root
        self._commands = commands
        self._units = units
        self._path = path
        self._lab = lab
        self._owner = owner
        self._watch: UnitWatch | None = None
        self.on_end: Callable[[], None] | None = None  # called when it has ended, by itself or not

    @property
    def runs(self) -> bool:
        """Whether guests can be plugged in."""
        return self._watch is not None and not self._watch.ended.done()

    async def find(self) -> None:
        """Take up the unit that an earlier nestd started, if it runs. CallFailed."""
        watch = await self._units.follow(labplaces.unit(self._lab))
        try:
            await self._units.settle(watch)
        except BaseException:
            await watch.close()
            raise
        if watch.ended.done():
            await watch.close()
        else:
            self._take(watch)

    async def start(self, account: Account) -> None:
        """Start it, unless it runs. LaunchFailed; then, and when cancelled, `stop` leaves nothing of it."""
        if self.runs:
            return
        try:
            await self.stop()
            watch = await self._units.follow(labplaces.unit(self._lab))
            self._take(watch)
            await self._start(watch, account)
        except CallFailed as error:
            raise LaunchFailed(refusals.refused(labplaces.unit(self._lab), error)) from error

    async def _start(self, watch: UnitWatch, account: Account) -> None:
        runtime = self._root.path(labplaces.runtime(self._lab))
        program = programs.find(self._root, self._path, programs.QEMU)
        argv = [program, *qemuhub.arguments(self._lab, runtime)]
        try:
            await self._units.reset_failed(watch.unit)
            properties = _properties(self._lab, account, argv)
            await self._units.start_transient(watch.unit, properties, qemuunit.START_LIMIT)
            await self._units.settle(watch)
            await self._greet()
        except UnitExists as error:
            await self.close()
            raise LaunchFailed(
                f"There is a unit {watch.unit} that nestd did not start: stop it first."
            ) from error
        except JobFailed as error:
            why = await qemuunit.why_not_begun(self._units, self._commands, watch, error)
            raise LaunchFailed(f"The segment of the lab {self._lab} did not start: {why}") from error
        except LaunchFailed as error:
            await self._units.settle(watch)
            await tasks.wait([watch.ended], qemuunit.END_LIMIT)
            if not watch.ended.done():
                raise
            why = await words.last_words(self._commands, watch.known)
            raise LaunchFailed(f"The segment of the lab {self._lab} did not start: {why}") from error

    async def plug(self, guest: str) -> socket.socket:
        """A new port; the guest's end of it is the caller's to close. LaunchFailed."""
        ours, its = socket.socketpair()
        try:
            async with await self._monitor() as monitor:
                await self._drop(monitor, guest)
                await monitor.execute("getfd", {"fdname": qemuhub.cable(guest)}, its.fileno())
                await monitor.execute("netdev_add", qemuhub.add_cable(guest))
                await monitor.execute("netdev_add", qemuhub.add_port(guest))
        except BaseException as error:
            ours.close()
            if not isinstance(error, OSError | QmpRefused | Malformed):
                raise
            raise LaunchFailed(
                f"{guest} cannot be plugged into the lab {self._lab}: {_why(error)}."
            ) from error
        finally:
            its.close()
        return ours

    async def unplug(self, guests: Sequence[str]) -> None:
        """Take the ports of guests away that are gone. A segment that is gone has none. LaunchFailed."""
        if not self.runs or not guests:
            return
        with self._talking():
            async with await self._monitor() as monitor:
                for guest in guests:
                    await self._drop(monitor, guest)

    async def stop(self) -> None:
        """Leave nothing of it; none is fine. CallFailed: it is still followed, and can be stopped again."""
        watch = self._watch
        if watch is None:
            return
        await qemuunit.remove(self._units, watch)
        await self.close()

    async def close(self) -> None:
        """Stop following it; it goes on."""
        watch, self._watch = self._watch, None
        if watch is not None:
            await watch.close()

    def _take(self, watch: UnitWatch) -> None:
        self._watch = watch
        watch.ended.add_done_callback(self._over)

    def _over(self, ended: tasks.Future[Mapping[str, Any]]) -> None:
        if self.on_end is not None and not ended.cancelled():
            self.on_end()

    async def _drop(self, monitor: QmpSocket, guest: str) -> None:
        for name in (qemuhub.port(guest), qemuhub.cable(guest)):
            try:
                await monitor.execute("netdev_del", {"id": name})
            except QmpRefused:
                continue  # there is none, or netdev_add says what is wrong

    async def _greet(self) -> None:
        """Have it said that it is there. LaunchFailed."""
        with self._talking():
            async with await self._monitor(qemuunit.ANSWER_LIMIT):
                pass

    async def _monitor(self, limit: float = 5.0) -> QmpSocket:
        """A connection to the monitor, with `limit` seconds for each answer. LaunchFailed."""
        with self._talking():
            if self._watch is None:
                raise ConnectionResetError(errno.ECONNRESET, "QEMU has ended")
            path = self._root.path(labplaces.qmp(self._lab))
            return QmpSocket(await qemuunit.monitor(path, self._owner, self._watch.ended), limit)

    @contextmanager
    def _talking(self) -> Iterator[None]:
        """LaunchFailed where what is done within fails."""
        try:
            yield
        except (OSError, NotTheGuest, QmpRefused, Malformed) as error:
            raise LaunchFailed(
                f"The segment of the lab {self._lab} cannot be talked to: {_why(error)}."
            ) from error


def _why(error: BaseException) -> object:
    return "it does not answer in time" if isinstance(error, TimeoutError) else error


def _properties(lab: str, account: Account, argv: Sequence[str]) -> list[tuple[str, Variant]]:
    """A guest's sandbox, without KVM, files and a console."""
    otherwise = {
        "Description": Variant("s", f"nestd lab {lab}"),
        "RuntimeDirectory": Variant("as", [f"{labplaces.RUNTIME_DIRECTORY}/{lab}"]),
        "MemoryMax": Variant("t", _MEMORY),
        "TasksMax": Variant("t", _TASKS),
        "DeviceAllow": Variant("a(ss)", []),
        "ProtectHome": Variant("s", "yes"),
        "TemporaryFileSystem": Variant("a(ss)", []),
    }
    guests = sandbox.properties(GuestSpec(lab, account.name), account, argv, kvm_group=False)
    return [(name, otherwise.get(name, value)) for name, value in guests]
