# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon's life: it takes its name, is ready, serves, reads its configuration again, ends.

The name is taken as soon as a status can be told; what costs time and is not needed for that (udev,
whose library runs ldconfig, and inotify) starts behind it, followed by one more reading. Ready it is when the
driver has been seen to: what may start guests is started after that (data/nestd.service).
"""

from __future__ import annotations

import os
import signal
from time import monotonic

from nestd import errors, log, tasks
from nestd.bus import manager
from nestd.bus.connection import Connection
from nestd.host import coldplug
from nestd.host.machine import Host
from nestd.loop import running
from nestd.model import DriverState
from nestd.nesting import circumstances
from nestd.notify import Notify
from nestd.objects import Objects
from nestd.wire import address

BUS_NAME = "org.nestd1"
_DO_NOT_QUEUE = 4
_PRIMARY_OWNER = 1
# Seconds that guests wait at boot for udev, and then for the driver to be made what was told.
_COLDPLUG, _BEGIN = 10.0, 30.0
# Seconds between two looks whether it is.
_LOOK = 0.1


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
    stop, again = tasks.Event(), tasks.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        running().add_signal_handler(number, stop.set)
    running().add_signal_handler(signal.SIGHUP, again.set)
    gathered = tasks.create_task(circumstances.gather(host))
    try:
        connection = await Connection.connect(address.of(bus, os.environ))
        try:
            objects = Objects(connection, host, await gathered)
            return await _Service(connection, host, objects).live(stop, again)
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
    """One life, on one connection."""

    def __init__(self, connection: Connection, host: Host, objects: Objects) -> None:
        self._connection = connection
        self._host = host
        self._objects = objects
        self._notify = Notify()

    async def live(self, stop: tasks.Event, again: tasks.Event) -> int:
        """Serve until `stop` is set (0) or the bus is gone (1); `again` has the configuration read again."""
        objects = self._objects
        objects.pending.restore()
        objects.keeper.restore()
        objects.dispatcher.export(manager.PATH, objects.manager)
        await self._restore_guests()
        await self._heal()
        answer = await self._connection.request_name(BUS_NAME, _DO_NOT_QUEUE)
        if answer != _PRIMARY_OWNER:
            log.error(
                f"{BUS_NAME} is taken on this bus: another nestd runs. Stop it first (systemctl stop nestd)."
            )
            return 1
        self._notify.keep_alive()
        objects.settle_labs()
        over = tasks.Event()
        gone = tasks.create_task(self._connection.wait_for_disconnect())
        stopped = tasks.create_task(stop.wait())
        for task in (gone, stopped):
            task.add_done_callback(lambda _: over.set())
        begun = tasks.create_task(self._begin(again))
        try:
            await over.wait()
            if not stop.is_set():
                log.error("The connection to the bus is gone; without it there is nothing to do here.")
                return 1
            self._notify.send("STOPPING=1")
            return 0
        finally:
            self._notify.close()
            for task in (gone, stopped, begun):
                task.cancel()
            await tasks.wait({begun})
            await objects.close()

    async def _begin(self, again: tasks.Event) -> None:
        """See to the driver, be ready, listen; then read the configuration again as often as asked for."""
        objects = self._objects
        awaited = objects.observer.status.driver_state is DriverState.UNLOADED
        if awaited:
            objects.listen()
            await coldplug.over(self._host.commands, _COLDPLUG)
            objects.observer.stale()
        objects.pending.take_up()
        objects.keeper.begin()
        end = monotonic() + _BEGIN
        while self._changing() and monotonic() < end:
            await tasks.sleep(_LOOK)
        self._notify.send("READY=1")
        if not awaited:
            objects.listen()
        while True:
            await again.wait()
            again.clear()
            self._notify.reloading()
            objects.reload()
            self._notify.send("READY=1")

    def _changing(self) -> bool:
        """Whether the driver is about to be changed; a guest that takes it now would be in the way."""
        objects = self._objects
        due = objects.pending.waiting is not None or objects.keeper.puts_back
        return due and not objects.observer.status.users

    async def _heal(self) -> None:
        """Before anybody is served: settle what an earlier nestd left half done, unless it still lives."""
        if not self._objects.changer.interrupted:
            return
        bus = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
        [owned] = await self._connection.call(*bus, "NameHasOwner", "s", [BUS_NAME])
        if not owned:
            # Microseconds: each tool that hangs costs half a minute, and systemd would end the start.
            self._notify.send("EXTEND_TIMEOUT_USEC=3600000000")
            await self._objects.changer.heal()

    async def _restore_guests(self) -> None:
        for what, restore in (
            ("guests", self._objects.registry.restore),
            ("labs", self._objects.restore_labs),
        ):
            try:
                await restore()
            except (errors.CallFailed, OSError) as failure:
                # Without systemd on the bus there are none; reading and changing work all the same.
                log.warning(f"No {what} can be found or started: {failure}")
