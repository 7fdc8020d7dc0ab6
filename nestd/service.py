# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon: builds the objects, exports them, lives until it is told to stop.

The name is taken as soon as a status can be told; what costs time and is not needed for that (udev,
whose library runs ldconfig, and inotify) starts behind it, followed by one more reading.
"""

from __future__ import annotations

import os
import signal
from functools import cache
from typing import TYPE_CHECKING

from nestd import errors, log, tasks
from nestd.bus import boundary, interface, manager, telling
from nestd.bus.connection import Connection
from nestd.bus.dispatcher import Dispatcher
from nestd.bus.guests import GuestObjects
from nestd.bus.polkit import Authority
from nestd.host import bootloader
from nestd.host.accounts import Accounts
from nestd.host.configuration import enforced
from nestd.host.machine import Host
from nestd.host.udev import ModuleMonitor
from nestd.host.units import Units
from nestd.host.watch import FolderWatch
from nestd.loop import running
from nestd.model import Drift, ModuleEvent, Status
from nestd.nesting import circumstances
from nestd.nesting.changer import Changer
from nestd.nesting.keeper import Keeper
from nestd.nesting.observer import Observer
from nestd.nesting.pending import Pending
from nestd.notify import Notify
from nestd.text.modprobe import FOLDERS
from nestd.wire import address

if TYPE_CHECKING:
    from nestd.guests.launch import Launcher
    from nestd.nesting.diagnosis import Diagnosis

BUS_NAME = "org.nestd1"
_DO_NOT_QUEUE = 4
_PRIMARY_OWNER = 1
# Seconds that a change under way may take to end when nestd is told to stop; systemd waits 90.
_SETTLE = 60.0
_GUEST_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def run(bus: str, host: Host | None = None) -> int:
    """Serve on `bus` (system, session or an address) until SIGTERM or SIGINT; the exit code."""
    try:
        return tasks.run(_serve(bus, host or Host.running()), _unforeseen)
    except TimeoutError:
        log.error(f"nestd cannot start: the bus {bus} did not answer in time.")
    except (errors.NestdError, OSError) as failure:
        log.error(f"nestd cannot go on: {failure}")
    return 1


async def _serve(bus: str, host: Host) -> int:
    stop = tasks.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        running().add_signal_handler(number, stop.set)
    gathered = tasks.create_task(circumstances.gather(host))
    try:
        connection = await Connection.connect(address.of(bus, os.environ))
        try:
            return await _Service(connection, host, await gathered).live(stop)
        finally:
            await connection.close()
    finally:
        gathered.cancel()


def _unforeseen(what: str, failure: BaseException) -> None:
    """What nobody caught: said in the journal, and the daemon goes on."""
    import traceback  # noqa: PLC0415 -- most daemons never need it, and it loads five modules

    text = "".join(traceback.format_exception(failure))
    log.error(f"{what}: {failure}", message_id=log.HANDLER_FAILED, traceback=text)


class _Service:
    """Everything that lives as long as the connection does."""

    def __init__(self, connection: Connection, host: Host, found: circumstances.Circumstances) -> None:
        self._connection = connection
        self._host = host
        self._observer = Observer(host, found, self._status_changed)
        self._changer = Changer(host, self._observer)
        self._pending = Pending(host, self._observer, self._changer, self._pending_changed)
        self._keeper = Keeper(
            host, self._observer, self._changer, self._pending, self._drifted, enforce=enforced(host.root)
        )
        self._changer.on_end += [lambda _: self._pending.settled(), self._keeper.told]
        authority = Authority(connection)
        self._dispatcher = Dispatcher(
            connection,
            interface.parse(interface.installed()),
            boundary.Guard(authority),
            self._machine_id,
            top=manager.PATH,
        )
        units = Units(connection)
        self._registry = GuestObjects(self._dispatcher, host.root, units).registry

        @cache
        def launcher() -> Launcher:
            from nestd.guests.launch import Launcher  # noqa: PLC0415 -- start-up does not need it

            path = os.environ.get("PATH", _GUEST_PATH)
            return Launcher(host.root, host.commands, Accounts(), units, self._registry, path=path)

        @cache
        def diagnosis() -> Diagnosis:
            from nestd.nesting.diagnosis import Diagnosis  # noqa: PLC0415 -- start-up does not need it

            more = (self._changer.checks, self._pending.checks, self._keeper.checks)
            return Diagnosis(host, self._observer, more)

        self._manager = manager.Manager(
            self._observer,
            self._changer,
            launcher,
            self._registry,
            authority,
            host.root,
            host.kmod,
            diagnosis,
            self._pending,
            self._keeper,
        )
        self._monitor = ModuleMonitor(self._module_event, self._observer.stale)
        self._watch = FolderWatch(host.root, (*FOLDERS, *bootloader.FOLDERS), self._observer.stale)

    async def live(self, stop: tasks.Event) -> int:
        """Serve until `stop` is set (0) or the bus is gone (1)."""
        self._pending.restore()
        self._keeper.restore()
        self._dispatcher.export(manager.PATH, self._manager)
        await self._restore_guests()
        await self._heal()
        answer = await self._connection.request_name(BUS_NAME, _DO_NOT_QUEUE)
        if answer != _PRIMARY_OWNER:
            log.error(
                f"{BUS_NAME} is taken on this bus: another nestd runs. Stop it first (systemctl stop nestd)."
            )
            return 1
        notify = Notify()
        notify.send("READY=1")
        self._listen()
        notify.keep_alive()
        over = tasks.Event()
        gone = tasks.create_task(self._connection.wait_for_disconnect())
        stopped = tasks.create_task(stop.wait())
        for task in (gone, stopped):
            task.add_done_callback(lambda _: over.set())
        try:
            await over.wait()
            if not stop.is_set():
                log.error("The connection to the bus is gone; without it there is nothing to do here.")
                return 1
            notify.send("STOPPING=1")
            return 0
        finally:
            notify.close()
            for task in (gone, stopped):
                task.cancel()
            await self._close()

    def _listen(self) -> None:
        """Start what tells of changes, then read once more what may have changed before."""
        for source in (self._monitor, self._watch):
            try:
                source.start()
            except OSError as failure:
                what = type(source).__name__
                log.error(f"Changes by others may be noticed late: {what} cannot start: {failure}")
        self._observer.stale()
        self._pending.take_up()
        self._keeper.begin()

    async def _heal(self) -> None:
        """Before anybody is served: settle what an earlier nestd left half done, unless it still lives."""
        if not self._changer.interrupted:
            return
        bus = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
        [owned] = await self._connection.call(*bus, "NameHasOwner", "s", [BUS_NAME])
        if not owned:
            # Microseconds: each tool that hangs costs half a minute, and systemd would end the start.
            Notify().send("EXTEND_TIMEOUT_USEC=600000000")
            await self._changer.heal()

    async def _restore_guests(self) -> None:
        try:
            await self._registry.restore()
        except (errors.CallFailed, OSError) as failure:
            # Without systemd on the bus there are no guests; reading and changing work all the same.
            log.warning(f"No guests can be found or started: {failure}")

    async def _close(self) -> None:
        self._monitor.close()
        self._watch.close()
        await self._pending.close()
        await self._keeper.close()
        try:
            async with tasks.timeout(_SETTLE):
                await self._changer.settle()
        except TimeoutError:
            log.error("A change under way did not end in time; its tools go on without nestd.")
        await self._dispatcher.close()
        await self._registry.close()

    def _machine_id(self) -> str:
        for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
            text = self._host.root.read(path)
            if text:
                return text.strip()
        raise errors.Failed("This machine has no machine id (machine-id(5)).")

    def _status_changed(self, before: Status, after: Status) -> None:
        old, new = telling.properties_of(before), telling.properties_of(after)
        changed = {name: value for name, value in new.items() if value != old[name]}
        if changed:
            self._dispatcher.changed(manager.PATH, manager.INTERFACE, changed)
        self._keeper.look()

    def _pending_changed(self) -> None:
        now = telling.properties_of(self._observer.status, self._pending.waiting)["PendingChange"]
        self._dispatcher.changed(manager.PATH, manager.INTERFACE, {"PendingChange": now})
        self._keeper.look()

    def _drifted(self, drift: Drift) -> None:
        values = (str(drift.expected), str(drift.actual), drift.cause)
        self._dispatcher.emit(manager.PATH, manager.INTERFACE, "Drift", *values)

    def _module_event(self, event: ModuleEvent) -> None:
        if event.module.startswith("kvm"):
            self._dispatcher.emit(manager.PATH, manager.INTERFACE, "ModuleEvent", event.action, event.module)
        if event.module.startswith(("kvm", "vboxdrv", "vmmon")):
            self._observer.stale()
            self._pending.nudge()
            self._keeper.nudge()
