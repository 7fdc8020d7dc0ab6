# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon's objects, built and wired: who tells whom of what."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

from nestd import __version__, errors, log, tasks
from nestd.bus import guard, interface, manager, telling
from nestd.bus.connection import Connection
from nestd.bus.dispatcher import Dispatcher
from nestd.bus.exported import Handler
from nestd.bus.guests import GuestObjects
from nestd.bus.jobs import Jobs
from nestd.bus.polkit import Authority
from nestd.bus.runas import RunAs
from nestd.guests import places
from nestd.host import bootloader, configuration
from nestd.host.accounts import Accounts
from nestd.host.machine import Host
from nestd.host.udev import ModuleMonitor
from nestd.host.units import Units
from nestd.host.watch import FolderWatch
from nestd.model import Drift, ModuleEvent, Status
from nestd.nesting.changer import Changer
from nestd.nesting.circumstances import Circumstances
from nestd.nesting.keeper import Keeper
from nestd.nesting.observer import Observer
from nestd.nesting.pending import Pending
from nestd.text.modprobe import FOLDERS

if TYPE_CHECKING:
    from nestd.bus.labs import LabObjects
    from nestd.fleet import Fleet
    from nestd.guests.launch import Launcher
    from nestd.nesting.diagnosis import Diagnosis
    from nestd.text.metrics import Seen

# Seconds that a change under way may take to end when nestd is told to stop; systemd waits 90.
_SETTLE = 60.0
_GUEST_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Objects:
    """Everything that lives as long as the connection does. `settings` are nestd.conf's as they are now."""

    def __init__(self, connection: Connection, host: Host, found: Circumstances) -> None:
        units = Units(connection)
        # Long tools run outside nestd's sandbox.
        self._host = host = host._replace(units=units)
        self.settings = configuration.read(host.root)
        self.observer = Observer(host, found, self._status_changed)
        self.changer = Changer(host, self.observer, lambda: self.settings.loader)
        self.pending = Pending(host, self.observer, self.changer, self._pending_changed)
        self.keeper = Keeper(
            host, self.observer, self.changer, self.pending, self._drifted, enforce=self.settings.enforce
        )
        self.changer.on_end += [lambda _: self.pending.settled(), self.keeper.told]
        authority = Authority(connection)
        run_as = RunAs(authority)
        path = os.environ.get("PATH", _GUEST_PATH)
        self.dispatcher = Dispatcher(
            connection,
            interface.parse(interface.installed()),
            guard.Guard(authority),
            self._machine_id,
            top=manager.PATH,
        )
        Jobs(self.dispatcher, self.changer)
        self._fleet: Fleet | None = None
        self.changer.on_progress.append(lambda _: self._fleet_told())
        self.registry = GuestObjects(
            self.dispatcher, host.root, units, host.commands, connection, self._guests_told
        ).registry
        self._labs: LabObjects | None = None

        @cache
        def launcher() -> Launcher:
            from nestd.guests.launch import Launcher  # noqa: PLC0415 -- start-up does not need it

            return Launcher(host.root, host.commands, Accounts(), units, self.registry, path=path)

        @cache
        def diagnosis() -> Diagnosis:
            from nestd.nesting.diagnosis import Diagnosis  # noqa: PLC0415 -- start-up does not need it

            more = (self.changer.checks, self.pending.checks, self.keeper.checks)
            return Diagnosis(host, self.observer, more)

        @cache
        def proof() -> Mapping[str, Handler]:
            from nestd.bus.proof import Proof  # noqa: PLC0415 -- start-up does not need it

            return Proof(host, self.observer, self.changer, launcher(), run_as).methods

        @cache
        def labs() -> LabObjects:
            from nestd.bus.labs import LabObjects  # noqa: PLC0415 -- start-up does not need it
            from nestd.guests.livelab import Ground  # noqa: PLC0415 -- as above

            around = Ground(host.root, host.commands, units, Accounts(), self.registry, launcher, path)
            self._labs = LabObjects(self.dispatcher, around, run_as, self.manager.ready)
            return self._labs

        self._make_labs = labs
        self.manager = manager.Manager(
            self.observer,
            self.changer,
            launcher,
            self.registry,
            authority,
            run_as,
            host.root,
            host.kmod,
            diagnosis,
            self.pending,
            self.keeper,
            proof,
            labs,
        )
        self._monitor = ModuleMonitor(self._module_event, self.observer.stale)
        self._watch = FolderWatch(host.root, (*FOLDERS, *bootloader.folders(host.root)), self.observer.stale)

    def listen(self) -> None:
        """Start what tells of changes, then read once more what may have changed before."""
        for source in (self._monitor, self._watch):
            try:
                source.start()
            except OSError as failure:
                what = type(source).__name__
                log.error(f"Changes by others may be noticed late: {what} cannot start: {failure}")
        self.observer.stale()
        self._tell_fleet()

    async def restore_labs(self) -> None:
        """Take up the labs of an earlier nestd, if there are any. OSError."""
        if self._host.root.names(places.LABS):
            await self._make_labs().labs.restore()

    def settle_labs(self) -> None:
        """Begin to settle what an earlier nestd has left of labs half done."""
        if self._labs is not None:
            self._labs.labs.settle()

    def reload(self) -> None:
        """Read nestd.conf again. What is under way goes on; what is wrong in it is logged."""
        self.settings = configuration.read(self._host.root)
        self.keeper.enforce(self.settings.enforce)
        self._tell_fleet()
        log.info(
            f"The configuration was read again: Enforce={'when-idle' if self.settings.enforce else 'no'}, "
            f"Loader={self.settings.loader or 'auto'}."
        )

    async def close(self) -> None:
        """End all of it; a change under way may end before."""
        self._monitor.close()
        self._watch.close()
        await self.pending.close()
        await self.keeper.close()
        try:
            async with tasks.timeout(_SETTLE):
                await self.changer.settle()
        except TimeoutError:
            log.error("A change under way did not end in time; its tools go on without nestd.")
        if self._fleet is not None:
            await self._fleet.close()
        await self.dispatcher.close()
        if self._labs is not None:
            await self._labs.labs.close()
        await self.registry.close()

    def _tell_fleet(self) -> None:
        """Write the files that the settings name from now on, if there are any."""
        if self._fleet is None and (self.settings.prometheus or self.settings.features):
            from nestd.fleet import Fleet  # noqa: PLC0415 -- most machines have no such file

            self._fleet = Fleet(self._host.root, self._seen)
        if self._fleet is not None:
            self._fleet.configure(self.settings)

    def _guests_told(self) -> None:
        if self._labs is not None:
            self._labs.labs.refresh()
        self._fleet_told()

    def _fleet_told(self) -> None:
        if self._fleet is not None:
            self._fleet.told()

    def _seen(self) -> Seen:
        from nestd.text.metrics import Seen  # noqa: PLC0415 -- as above

        status, waiting, drift = self.observer.status, self.pending.waiting, self.keeper.drift
        states = tuple(record.state for record in self.registry.records)
        return Seen(__version__, status, waiting is not None, drift is not None, states)

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
            self.dispatcher.changed(manager.PATH, manager.INTERFACE, changed)
        self.keeper.look()
        self._fleet_told()

    def _pending_changed(self) -> None:
        now = telling.properties_of(self.observer.status, self.pending.waiting)["PendingChange"]
        self.dispatcher.changed(manager.PATH, manager.INTERFACE, {"PendingChange": now})
        self.keeper.look()
        self._fleet_told()

    def _drifted(self, drift: Drift) -> None:
        values = (str(drift.expected), str(drift.actual), drift.cause)
        self.dispatcher.emit(manager.PATH, manager.INTERFACE, "Drift", *values)
        self._fleet_told()

    def _module_event(self, event: ModuleEvent) -> None:
        if event.module.startswith("kvm"):
            self.dispatcher.emit(manager.PATH, manager.INTERFACE, "ModuleEvent", event.action, event.module)
        if event.module.startswith(("kvm", "vboxdrv", "vmmon")):
            self.observer.stale()
            self.pending.nudge()
            self.keeper.nudge()
