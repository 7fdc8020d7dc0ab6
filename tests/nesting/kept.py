# SPDX-License-Identifier: LGPL-2.1-or-later
"""A machine with what waits and what is kept, wired as the service has it, for tests of both."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from nestd import tasks
from nestd.model import Drift, Status
from nestd.nesting.changer import Changer
from nestd.nesting.circumstances import Circumstances
from nestd.nesting.keeper import Keeper
from nestd.nesting.observer import Observer
from nestd.nesting.pending import Pending
from tests.nesting.machines import Machine
from tests.support.tree import Tree

REFCNT = "/sys/module/kvm_amd/refcnt"
NESTED = "/sys/module/kvm_amd/parameters/nested"
RECORD = "/var/lib/nestd/pending"
NOTE = "/run/nestd/expected"
ARRIVAL = "/run/nestd/arrival"
ALICE = 1000


def machine(tmp_path: Path) -> Machine:
    """An AMD machine with nesting on."""
    tree = Tree(tmp_path).amd().module("kvm_amd").write("/dev/kvm", "")
    for folder in ("/var/lib/nestd", "/run/nestd"):
        tree.path(folder).mkdir(parents=True)
    return Machine.of(tree)


class Kept:
    """One life of the daemon's part for it. `told` is what was announced: PendingChange, and drifts."""

    def __init__(self, machine: Machine, *, enforce: bool = False, delay: float = 1.0) -> None:
        self.machine = machine
        self.told: list[str | Drift] = []
        self.observer = Observer(machine.host, Circumstances("none"), self._status_changed)
        self.changer = Changer(machine.host, self.observer)
        self.pending = Pending(machine.host, self.observer, self.changer, self._pending_changed)
        self.keeper = Keeper(
            machine.host,
            self.observer,
            self.changer,
            self.pending,
            self.told.append,
            enforce=enforce,
            delay=delay,
        )
        self.changer.on_end += [lambda _: self.pending.settled(), self.keeper.told]

    def begin(self) -> None:
        """As at the daemon's start."""
        self.pending.restore()
        self.keeper.restore()
        self.pending.take_up()
        self.keeper.begin()

    def by_hand(self, *arguments: str) -> None:
        """Somebody reloads the driver."""
        self.tool("rmmod")
        self.tool("modprobe", *arguments)

    def tool(self, name: str, *arguments: str) -> None:
        """Somebody unloads or loads the driver, and the kernel says so."""
        words = [name, "--", "kvm_amd", *arguments]
        assert os.spawnv(os.P_WAIT, self.machine.tools.folder / name, words) == 0
        self.event()

    def event(self) -> None:
        """A module came or went."""
        self.observer.stale()
        self.pending.nudge()
        self.keeper.nudge()

    def drifts(self) -> list[tuple[str, str]]:
        """Expected and actual of the drifts so far."""
        return [(str(each[0]), str(each[1])) for each in self.told if isinstance(each, Drift)]

    @property
    def nested(self) -> str:
        """What the fake kernel has; empty in the moment in which the driver is not there."""
        return (self.machine.host.root.read(NESTED) or "").strip()

    def _status_changed(self, _: Status, __: Status) -> None:
        self.keeper.look()

    def _pending_changed(self) -> None:
        self.told.append(str(self.pending.waiting.nested) if self.pending.waiting else "")
        self.keeper.look()


@asynccontextmanager
async def kept(machine: Machine, *, enforce: bool = False, delay: float = 1.0) -> AsyncIterator[Kept]:
    """From start to stop, in the order that the service has."""
    life = Kept(machine, enforce=enforce, delay=delay)
    life.begin()
    try:
        yield life
    finally:
        await life.pending.close()
        await life.keeper.close()
        await life.changer.settle()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for it, 20 s at most."""
    async with tasks.timeout(20):
        while not condition():
            await tasks.sleep(0.01)


def hold(machine: Machine, pid: int) -> None:
    """The process has a virtual machine."""
    machine.tree.write(REFCNT, "1\n").process(pid, "qemu", "/dev/kvm", "anon_inode:kvm-vm")


def release(machine: Machine, pid: int) -> None:
    """It has none any more."""
    machine.tree.gone(f"/proc/{pid}").write(REFCNT, "0\n")
    os.close(os.open(machine.tree.path("/dev/kvm"), os.O_RDWR))
