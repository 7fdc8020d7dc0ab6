# SPDX-License-Identifier: LGPL-2.1-or-later
"""The guests' objects on the bus: each comes with its guest, follows it, and goes a while after its end."""

from collections.abc import Callable

from nestd import log
from nestd.bus import manager
from nestd.bus.dispatcher import Dispatcher
from nestd.bus.guest import INTERFACE, Guest
from nestd.guestmodel import GuestRecord
from nestd.guests.registry import Registry
from nestd.host.commands import Commands
from nestd.host.root import Root
from nestd.host.services import Bus
from nestd.host.units import Units


class GuestObjects:
    """Owns the registry, and exports what it holds. `on_change` is called when a guest has changed."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        root: Root,
        units: Units,
        commands: Commands,
        bus: Bus,
        on_change: Callable[[], None],
    ) -> None:
        self._dispatcher = dispatcher
        self._on_change = on_change
        self._guests: dict[str, Guest] = {}
        self.registry = Registry(root, units, commands, bus, self)

    def added(self, record: GuestRecord) -> None:
        """A guest's object comes."""
        guest = self._guests[record.name] = Guest(self.registry, record)
        self._dispatcher.export(manager.guest_path(record.name), guest)
        if record.over:
            return
        log.info(
            f"The guest {record.name} runs as {record.unit} (uid {record.owner}, CPU {record.cpu}).",
            message_id=log.GUEST_STARTED,
            guest=record.name,
        )
        self._on_change()

    def changed(self, record: GuestRecord) -> None:
        """Its properties are now those of `record`."""
        if changed := self._guests[record.name].update(record):
            self._dispatcher.changed(manager.guest_path(record.name), INTERFACE, changed)
            self._on_change()

    def exited(self, record: GuestRecord) -> None:
        """It has ended; its object stays for a while."""
        self.changed(record)
        path = manager.guest_path(record.name)
        self._dispatcher.emit(
            manager.PATH, manager.INTERFACE, "GuestExited", path, record.name, record.result
        )
        log.info(
            f"The guest {record.name} has ended ({record.result}, status {record.exit_status}).",
            message_id=log.GUEST_EXITED,
            guest=record.name,
        )

    def forgotten(self, record: GuestRecord) -> None:
        """Its object goes."""
        del self._guests[record.name]
        self._dispatcher.withdraw(manager.guest_path(record.name))
