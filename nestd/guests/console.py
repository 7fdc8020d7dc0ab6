# SPDX-License-Identifier: LGPL-2.1-or-later
"""The guests' serial consoles, for somebody to talk to: one at a time each."""

from __future__ import annotations

from nestd import tasks
from nestd.errors import Busy, Failed, Malformed
from nestd.guestmodel import GuestRecord
from nestd.guests import places
from nestd.host.qmpsocket import NotTheGuest, QmpRefused, QmpSocket, connect
from nestd.host.root import Root

# Seconds that QEMU has to tell whether its console is free. One that does not is as if it were.
_PATIENCE = 2.0
# Seconds that a question may last.
_A_DAY = 86_400.0


class Consoles:
    """Whoever comes second is told so: QEMU itself would leave it waiting, in silence (listen(2)'s queue)."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._opening: set[str] = set()
        # At most one question a guest, which lasts until it is answered: each takes a place in the queue
        # of the monitor, where the power button needs one.
        self._asking: dict[str, tasks.Task[bool]] = {}

    async def open(self, record: GuestRecord) -> int:
        """A descriptor of the running guest's console, for the caller to close. Busy, Failed."""
        name = record.name
        busy = Busy(f"The console of {name} is in use by another: leave it there first (Ctrl-]).")
        if name in self._opening:
            raise busy
        self._opening.add(name)
        try:
            if await self._taken(record):
                raise busy
            return self._connect(record, busy)
        finally:
            self._opening.discard(name)

    async def close(self) -> None:
        """Ask no more."""
        for task in (asking := list(self._asking.values())):
            task.cancel()
        await tasks.wait(asking)

    async def _taken(self, record: GuestRecord) -> bool:
        """Whether QEMU says so. What cannot be asked is told by the connection, if at all."""
        name = record.name
        asking = self._asking.get(name)
        if asking is None:
            asking = self._asking[name] = tasks.create_task(self._ask(record))
        await tasks.wait([asking], _PATIENCE)
        return asking.done() and asking.result()

    async def _ask(self, record: GuestRecord) -> bool:
        try:
            monitor = connect(self._root.path(places.qmp(record.name)), record.owner)
            async with QmpSocket(monitor, _A_DAY) as session:
                return _has_client(await session.execute("query-chardev"))
        except (OSError, NotTheGuest, QmpRefused, Malformed):
            return False  # the guest is gone, or so is its QEMU's good will
        finally:
            del self._asking[record.name]

    def _connect(self, record: GuestRecord, busy: Busy) -> int:
        name = record.name
        try:
            console = connect(self._root.path(places.console(name)), record.owner)
        except BlockingIOError as error:
            raise busy from error
        except (OSError, NotTheGuest) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise Failed(f"The console of {name} cannot be opened: {why}.") from error
        console.setblocking(True)
        return console.detach()


def _has_client(chardevs: object) -> bool:
    """Whether somebody is connected, by the answer to `query-chardev`. Malformed.

    Source: QEMU's chardev/char-socket.c.
    """
    for each in chardevs if isinstance(chardevs, list) else ():
        match each:
            case {"label": "console", "filename": str(filename)}:
                return not filename.startswith("disconnected:")
    raise Malformed("QMP: query-chardev names no console")
