# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon: builds the objects, exports them, lives until it is told to stop.

The name is taken as soon as a status can be told; what costs time and is not needed for that (udev,
whose library runs ldconfig, and inotify) starts behind it, followed by one more reading.
"""

from __future__ import annotations

import asyncio
import os
import signal
import traceback
from functools import cache
from typing import TYPE_CHECKING, Any

from nestd import errors, log
from nestd.bus import boundary, interface, manager
from nestd.bus.connection import Connection
from nestd.bus.dispatcher import Dispatcher
from nestd.bus.guest import INTERFACE as GUEST_INTERFACE
from nestd.bus.guest import Guest
from nestd.bus.polkit import Authority
from nestd.guests.registry import Registry
from nestd.host.accounts import Accounts
from nestd.host.machine import Host
from nestd.host.udev import ModuleMonitor
from nestd.host.units import Units
from nestd.host.virt import virtualization
from nestd.host.watch import FolderWatch
from nestd.model import GuestRecord, ModuleEvent, Status
from nestd.nesting.changer import Changer
from nestd.nesting.observer import Observer
from nestd.notify import Notify
from nestd.text.modprobe import FOLDERS
from nestd.wire import address

if TYPE_CHECKING:
    from nestd.guests.launch import Launcher

BUS_NAME = "org.nestd1"
_DO_NOT_QUEUE = 4
_PRIMARY_OWNER = 1
# Seconds that a change under way may take to end when nestd is told to stop; systemd waits 90.
_SETTLE = 60.0
_GUEST_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def run(bus: str, host: Host | None = None) -> int:
    """Serve on `bus` (system, session or an address) until SIGTERM or SIGINT; the exit code."""
    try:
        return asyncio.run(_serve(bus, host or Host.running()))
    except TimeoutError:
        log.error(f"nestd cannot start: the bus {bus} did not answer in time.")
    except (errors.NestdError, OSError) as failure:
        log.error(f"nestd cannot go on: {failure}")
    return 1


async def _serve(bus: str, host: Host) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_unforeseen)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    detected = asyncio.create_task(_virtualization(host))
    try:
        connection = await Connection.connect(address.of(bus, os.environ))
        try:
            return await _Service(connection, host, await detected).live(stop)
        finally:
            await connection.close()
    finally:
        detected.cancel()


def _unforeseen(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What a callback of the loop raised: said in the journal, and the daemon goes on."""
    failure = context.get("exception")
    text = "".join(traceback.format_exception(failure)) if failure else ""
    log.error(f"{context['message']}: {failure}", message_id=log.HANDLER_FAILED, traceback=text)


async def _virtualization(host: Host) -> str:
    try:
        return await virtualization(host.commands)
    except errors.ToolFailed as failure:
        log.warning(f"What this machine runs in cannot be told: {failure}")
        return ""


class _Service:
    """Everything that lives as long as the connection does."""

    def __init__(self, connection: Connection, host: Host, virtualization: str) -> None:
        self._connection = connection
        self._host = host
        self._guests: dict[str, Guest] = {}
        self._observer = Observer(host, virtualization, self._status_changed)
        self._changer = Changer(host, self._observer)
        units = Units(connection)
        self._registry = Registry(
            host.root, units, self._guest_added, self._guest_changed, self._guest_exited
        )

        @cache
        def launcher() -> Launcher:
            from nestd.guests.launch import Launcher  # noqa: PLC0415 -- start-up does not need it

            path = os.environ.get("PATH", _GUEST_PATH)
            return Launcher(host.root, host.commands, Accounts(), units, self._registry, path=path)

        authority = Authority(connection)
        self._dispatcher = Dispatcher(
            connection,
            interface.parse(interface.installed()),
            boundary.Guard(authority),
            self._machine_id,
            top=manager.PATH,
        )
        self._manager = manager.Manager(
            self._observer, self._changer, launcher, self._registry, authority, host.root, host.kmod
        )
        self._monitor = ModuleMonitor(self._module_event, self._observer.stale)
        self._watch = FolderWatch(host.root, FOLDERS, self._observer.stale)

    async def live(self, stop: asyncio.Event) -> int:
        """Serve until `stop` is set (0) or the bus is gone (1)."""
        self._dispatcher.export(manager.PATH, self._manager)
        await self._restore_guests()
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
        gone = asyncio.create_task(self._connection.wait_for_disconnect())
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({gone, stopped}, return_when=asyncio.FIRST_COMPLETED)
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

    async def _restore_guests(self) -> None:
        try:
            await self._registry.restore()
        except (errors.CallFailed, OSError) as failure:
            # Without systemd on the bus there are no guests; reading and changing work all the same.
            log.warning(f"No guests can be found or started: {failure}")

    async def _close(self) -> None:
        self._monitor.close()
        self._watch.close()
        try:
            async with asyncio.timeout(_SETTLE):
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
        old, new = manager.properties_of(before), manager.properties_of(after)
        changed = {name: value for name, value in new.items() if value != old[name]}
        if changed:
            self._dispatcher.changed(manager.PATH, manager.INTERFACE, changed)

    def _module_event(self, event: ModuleEvent) -> None:
        if event.module.startswith("kvm"):
            self._dispatcher.emit(manager.PATH, manager.INTERFACE, "ModuleEvent", event.action, event.module)
            self._observer.stale()

    def _guest_added(self, record: GuestRecord) -> None:
        guest = self._guests[record.name] = Guest(self._registry, record)
        self._dispatcher.export(manager.guest_path(record.name), guest)
        log.info(
            f"The guest {record.name} runs as {record.unit} (uid {record.owner}, CPU {record.cpu}).",
            message_id=log.GUEST_STARTED,
            guest=record.name,
        )

    def _guest_changed(self, record: GuestRecord) -> None:
        if changed := self._guests[record.name].update(record):
            self._dispatcher.changed(manager.guest_path(record.name), GUEST_INTERFACE, changed)

    def _guest_exited(self, record: GuestRecord, result: str) -> None:
        path = manager.guest_path(record.name)
        self._guest_changed(record)
        del self._guests[record.name]
        self._dispatcher.emit(manager.PATH, manager.INTERFACE, "GuestExited", path, record.name, result)
        self._dispatcher.withdraw(path)
        log.info(
            f"The guest {record.name} has ended ({result}, status {record.exit_status}).",
            message_id=log.GUEST_EXITED,
            guest=record.name,
        )
