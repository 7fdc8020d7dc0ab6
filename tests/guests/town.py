# SPDX-License-Identifier: LGPL-2.1-or-later
"""The labs' part of one daemon on a machine of tests/guests/house.py, and what it was told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from nestd.bus.connection import Connection
from nestd.guestmodel import GuestRecord
from nestd.guests import labstore
from nestd.guests.lab import LabView
from nestd.guests.labs import Labs
from nestd.guests.livelab import Ground
from nestd.host.commands import Commands
from nestd.host.root import Root
from nestd.model import Extension
from tests.guests.house import NOBODY, FewAccounts, House, Nestd


class _Ears:
    def __init__(self) -> None:
        self.heard: list[tuple[str, LabView]] = []

    def added(self, view: LabView) -> None:
        self.heard.append(("added", view))

    def changed(self, view: LabView) -> None:
        self.heard.append(("changed", view))

    def removed(self, view: LabView) -> None:
        self.heard.append(("removed", view))


class Town(Nestd):
    """A daemon with labs. `heard` is what was told of them."""

    def __init__(self, top: Path, connection: Connection) -> None:
        super().__init__(top, connection)
        self.root = Root(str(top))
        commands = Commands(f"{top}/bin:/usr/bin:/bin")
        ears = _Ears()
        self.heard = ears.heard
        self.labs = Labs(
            Ground(
                self.root, commands, self.units, FewAccounts(), self.registry, lambda: self.launcher, "/bin"
            ),
            ears,
        )

    def added(self, record: GuestRecord) -> None:
        super().added(record)
        self.labs.refresh()

    def changed(self, record: GuestRecord) -> None:
        super().changed(record)
        self.labs.refresh()

    def exited(self, record: GuestRecord) -> None:
        super().exited(record)
        self.labs.refresh()

    async def create(self, name: str = "town", **options: Any) -> LabView:
        """Create a lab for guestling on a CPU with svm."""
        return await self.labs.create(name, NOBODY.name, options, Extension.SVM)

    def guests(self) -> list[str]:
        """The guests that run."""
        return [record.name for record in self.registry.records]

    def kept(self) -> list[tuple[str, str]]:
        """The labs that are remembered, and what is being done to them."""
        return [(lab.name, lab.doing) for lab in labstore.load_all(self.root)]

    async def segments(self) -> list[str]:
        """The units of segments that are there."""
        return sorted(await self.units.matching("nestd-lab-*"))


@asynccontextmanager
async def town(house: House) -> AsyncIterator[Town]:
    """One life of the daemon: guests and labs of earlier ones restored, nothing settled."""
    connection = await Connection.connect(house.address)
    try:
        made = Town(house.top, connection)
        try:
            await made.registry.restore()
            await made.labs.restore()
            yield made
        finally:
            await made.labs.close()
            await made.registry.close()
    finally:
        await connection.close()
