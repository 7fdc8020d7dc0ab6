# SPDX-License-Identifier: LGPL-2.1-or-later
"""The guests' objects on the bus: each comes with its guest, follows it, and goes with it."""

from nestd import log
from nestd.bus import manager
from nestd.bus.dispatcher import Dispatcher
from nestd.bus.guest import INTERFACE, Guest
from nestd.guestmodel import GuestRecord
from nestd.guests.registry import Registry
from nestd.host.root import Root
from nestd.host.units import Units


class GuestObjects:
    """Owns the registry, and exports what it holds."""

    def __init__(self, dispatcher: Dispatcher, root: Root, units: Units) -> None:
        self._dispatcher = dispatcher
        self._guests: dict[str, Guest] = {}
        self.registry = Registry(root, units, self._added, self._changed, self._exited)

    def _added(self, record: GuestRecord) -> None:
        guest = self._guests[record.name] = Guest(self.registry, record)
        self._dispatcher.export(manager.guest_path(record.name), guest)
        log.info(
            f"The guest {record.name} runs as {record.unit} (uid {record.owner}, CPU {record.cpu}).",
            message_id=log.GUEST_STARTED,
            guest=record.name,
        )

    def _changed(self, record: GuestRecord) -> None:
        if changed := self._guests[record.name].update(record):
            self._dispatcher.changed(manager.guest_path(record.name), INTERFACE, changed)

    def _exited(self, record: GuestRecord, result: str) -> None:
        path = manager.guest_path(record.name)
        self._changed(record)
        del self._guests[record.name]
        self._dispatcher.emit(manager.PATH, manager.INTERFACE, "GuestExited", path, record.name, result)
        self._dispatcher.withdraw(path)
        log.info(
            f"The guest {record.name} has ended ({result}, status {record.exit_status}).",
            message_id=log.GUEST_EXITED,
            guest=record.name,
        )
