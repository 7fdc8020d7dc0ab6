# SPDX-License-Identifier: LGPL-2.1-or-later
"""A machine to start guests on: a private bus, the fake systemd, the fake QEMU, a tree, and an account."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from nestd import tasks
from nestd.bus.connection import Connection
from nestd.guestmodel import GuestRecord, GuestSpec
from nestd.guests import places, qemuunit, sandbox
from nestd.guests.launch import Launcher
from nestd.guests.registry import Registry
from nestd.host.accounts import Account
from nestd.host.commands import Commands
from nestd.host.root import Root
from nestd.host.units import Units
from nestd.model import Extension
from nestd.text import qemu
from tests.support import fakeqemu, loop
from tests.support.fakesystemd import FakeSystemd
from tests.support.privatebus import Kind, PrivateBus

NOBODY = Account("guestling", 65534, 65534)
ROOT = Account("root", 0, 0)


class FewAccounts:
    """Two accounts and no group."""

    def by_name(self, name: str) -> Account | None:
        return {account.name: account for account in (NOBODY, ROOT)}.get(name)

    def has_group(self, name: str) -> bool:
        return False


class Nestd:
    """The guests' part of one daemon, and what it was told."""

    def __init__(
        self, top: Path, connection: Connection, answer_limit: float = qemuunit.ANSWER_LIMIT
    ) -> None:
        self._top = top
        self.connection = connection
        self.units = units = Units(connection)
        self.told: list[tuple[str, GuestRecord]] = []
        root, path = Root(str(top)), str(top / "bin")
        # The journal is asked through `sh` and `cat`, which are the machine's own.
        commands = Commands(f"{path}:/usr/bin:/bin")
        self.registry = Registry(root, units, commands, connection, self)
        self.launcher = Launcher(
            root, commands, FewAccounts(), units, self.registry, path="/bin", answer_limit=answer_limit
        )

    def added(self, record: GuestRecord) -> None:
        """As guests/registry.py has it."""
        self.told.append(("added", record))

    def changed(self, record: GuestRecord) -> None:
        """As guests/registry.py has it."""
        self.told.append(("changed", record))

    def exited(self, record: GuestRecord) -> None:
        """As guests/registry.py has it."""
        self.told.append(("exited", record))

    def forgotten(self, record: GuestRecord) -> None:
        """As guests/registry.py has it."""
        self.told.append(("forgotten", record))

    async def launch(self, name: str = "demo", **options: object) -> GuestRecord:
        """Launch on a CPU with svm."""
        spec = GuestSpec(name=name, user=NOBODY.name, **options)  # type: ignore[arg-type]
        return await self.launcher.launch(spec, Extension.SVM)

    async def start_only(self, name: str) -> None:
        """What is there of a guest when the daemon dies between its start and its first word."""
        spec, root = GuestSpec(name, NOBODY.name), str(self._top)
        sockets, log = root + places.runtime(name), root + places.console_log(name)
        argv = [f"{root}/bin/qemu-system-x86_64", *qemu.arguments(spec, Extension.SVM, sockets, log)]
        await self.units.start_transient(
            places.unit(name), sandbox.properties(spec, NOBODY, argv, kvm_group=False)
        )

    def story(self) -> list[tuple[str, str, str]]:
        """What the callbacks were told, in short."""
        return [(what, record.state.value, record.result) for what, record in self.told]


class House:
    """One machine. `top` is its root; every user can reach it."""

    def __init__(self, top: Path, address: str) -> None:
        self.top = top
        self.address = address

    @asynccontextmanager
    async def nestd(self, answer_limit: float = qemuunit.ANSWER_LIMIT) -> AsyncIterator[Nestd]:
        """One life of the daemon: connected, the guests of earlier ones restored."""
        connection = await Connection.connect(self.address)
        try:
            nestd = Nestd(self.top, connection, answer_limit)
            try:
                await nestd.registry.restore()
                yield nestd
            finally:
                await nestd.registry.close()
        finally:
            await connection.close()

    def manner(self, manner: fakeqemu.Manner) -> None:
        """How QEMU behaves from the next start on."""
        fakeqemu.install(self.top / "bin", manner)

    def runs(self) -> list[str]:
        """The guests that have a runtime folder: those whose unit is there."""
        folder = self.top / "run/nestd/guests"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@contextmanager
def house(manner: fakeqemu.Manner = fakeqemu.Manner.GOOD, kind: Kind = Kind.DAEMON) -> Iterator[House]:
    """A machine, and its end."""
    top = Path(tempfile.mkdtemp(prefix="nestd-g-"))
    try:
        top.chmod(0o755)
        for folder in ("bin", "dev", "run"):
            (top / folder).mkdir()
        (top / "dev/kvm").touch()
        with PrivateBus(kind=kind) as bus, FakeSystemd(bus.address, top, top / "bin"):
            made = House(top, bus.address)
            made.manner(manner)
            yield made
    finally:
        shutil.rmtree(top)


def run(
    scenario: Callable[[House], Awaitable[None]],
    manner: fakeqemu.Manner = fakeqemu.Manner.GOOD,
    kind: Kind = Kind.DAEMON,
) -> None:
    """Play a scenario on a machine of its own, within a minute."""

    async def play(made: House) -> None:
        async with tasks.timeout(60):
            await scenario(made)

    with house(manner, kind) as made:
        loop.run(play(made))


def records(house: House) -> list[str]:
    """The files in which nestd keeps what it knows of guests."""
    folder = house.top / "run/nestd/registry"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


async def until(condition: Callable[[], bool], limit: float = 20.0) -> None:
    """Wait for what must come; TimeoutError if it does not."""
    async with tasks.timeout(limit):
        while not condition():
            await tasks.sleep(0.01)
