# SPDX-License-Identifier: LGPL-2.1-or-later
"""A machine on which a change is made, killed at a moment, and healed; and all plans that there are.

A kill is a SIGKILL of a process that was forked to make the change; nothing of it runs afterwards.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest

from nestd.host.commands import Commands
from nestd.host.machine import Host
from nestd.model import Nesting, Scope, Verdict
from nestd.nesting import change, drivers, dropin, plan, steps
from nestd.nesting.circumstances import Circumstances
from nestd.nesting.heal import check, heal
from nestd.nesting.ledger import BOOT_ID, Ledger
from nestd.nesting.status import Reading, read
from nestd.nesting.store import CHANGE
from tests.nesting.kernel import TellingKmod, TellingRoot, remove
from tests.support import loop
from tests.support.daemon_main import BuiltTree
from tests.support.fakekvm import FakeKvm
from tests.support.tree import RELEASE, Tree

ON, OFF = Nesting.ON, Nesting.OFF
AMD = next(driver for driver in drivers.table(RELEASE) if driver.name == "kvm_amd")
OTHER = {ON: OFF, OFF: ON}
SWITCH = {ON: "1", OFF: "0"}


class Start(NamedTuple):
    """Where a change begins: what the driver's switch shows (None: it is not loaded), what the drop-in says
    (None: there is none), and whether another parameter was given by hand."""

    running: Nesting | None
    told: Nesting | None
    by_hand: bool = False

    def __str__(self) -> str:
        return f"{self.running or 'unloaded'}-{self.told or 'untold'}{'-npt' if self.by_hand else ''}"


class State(NamedTuple):
    """All that a change could touch."""

    dropin: str | None
    parameters: tuple[tuple[str, str], ...] | None

    @property
    def switch(self) -> str | None:
        return dict(self.parameters)["nested"] if self.parameters else None


def nobody(_: str) -> None:
    """Nothing comes in between."""


@dataclass(frozen=True, slots=True)
class Ground:
    """A tree and what acts on it; `moment` is called whenever something could come in between."""

    tree: Tree
    host: Host

    @classmethod
    def of(cls, tree: Tree, moment: Callable[[str], None] = nobody) -> Ground:
        root = TellingRoot(str(tree.top), moment)
        kmod = TellingKmod(tree, root, moment)
        return cls(tree, Host(root, Commands(""), kmod, FakeKvm(tree), RELEASE))

    def read(self) -> Reading:
        return read(self.host, Circumstances("none"))

    def change(self, wish: steps.Wish) -> None:
        todo = loop.run(plan.make(self.host, self.read(), wish, ()))
        ledger = Ledger(self.host.root, RELEASE)
        ledger.load()
        loop.run(change.carry_out(self.host, ledger, todo, self.read))

    def heal(self) -> Ledger:
        """As a daemon does that starts."""
        ledger = Ledger(self.host.root, RELEASE)
        ledger.load()
        loop.run(heal(self.host, ledger, self.read))
        return ledger

    def state(self) -> State:
        loaded = self.tree.root.exists("/sys/module/kvm_amd")
        shown = self.host.kmod.parameters("kvm_amd") if loaded else None
        return State(self.tree.root.read(dropin.PATH), tuple(sorted(shown.items())) if shown else None)


def build(top: Path, start: Start) -> Tree:
    tree = Tree(top).amd().module("kvm", halt_poll_ns="12345")
    tree.path("/etc/modprobe.d").mkdir(parents=True)
    tree.write(BOOT_ID, "first\n")
    if start.told:
        tree.write(dropin.PATH, dropin.text(AMD, start.told))
    if start.running:
        tree.module("kvm_amd", nested=SWITCH[start.running], npt="N" if start.by_hand else "Y")
    return tree


def copy(tree: Tree, top: Path) -> Tree:
    """The same once more, elsewhere."""
    shutil.rmtree(top, ignore_errors=True)
    shutil.copytree(tree.top, top)
    return BuiltTree(top)


def counted(act: Callable[[], None], number: int, only: str = "") -> Callable[[str], None]:
    """Does `act` at the moment of that number, from 0, counting those whose name has `only` in it."""
    left = [number]

    def moment(name: str) -> None:
        if only in name:
            left[0] -= 1
            if left[0] == -1:
                act()

    return moment


def kill_myself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def forked(work: Callable[[], object]) -> bool:
    """Have another process do it; whether that was killed. It must not fail otherwise."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.waitstatus_to_exitcode(status) == 0
    return False


def kills(top: Path, start: Start, wish: steps.Wish) -> Iterator[tuple[int, Ground]]:
    """The machine, freshly killed at each moment of the change, one after the other; each is counted."""
    whole = build(top / "whole", start)
    for number in range(1000):
        tree = copy(whole, top / "killed")
        ground = Ground.of(tree, counted(kill_myself, number))
        if not forked(lambda ground=ground: ground.change(wish)):  # type: ignore[misc]
            assert number > 4, "hardly a moment at all"
            return
        yield number, Ground.of(tree)


def old_and_new(top: Path, start: Start, wish: steps.Wish) -> tuple[State, State]:
    """The state before, and after a change that nothing comes in between of."""
    ground = Ground.of(build(top / "plain", start))
    before = ground.state()
    ground.change(wish)
    return before, ground.state()


def assert_settled(ground: Ground, ledger: Ledger, number: int = 0) -> None:
    """No record is left, kvm was not touched, and (looked at for every fifth) the next change works."""
    assert not ground.tree.root.exists(CHANGE)
    assert check(ground.host, ledger, "").verdict is Verdict.PASS
    assert ground.tree.read("/sys/module/kvm/parameters/halt_poll_ns") == "12345\n"
    if number % 5:
        return
    by_hand = ground.host.kmod.parameters("kvm_amd").get("npt")
    for nested in (OTHER[ground.read().status.nested], ground.read().status.nested):
        ground.change(steps.Wish(nested, Scope.BOTH))
        status = ground.read().status
        assert (status.nested, status.nested_at_boot) == (nested, nested)
        assert by_hand in (None, status.parameters["npt"])
    assert not ground.tree.root.exists(CHANGE)


STARTS = [
    *(Start(running, told) for running in (ON, OFF, None) for told in (None, ON, OFF)),
    *(Start(running, None, by_hand=True) for running in (ON, OFF)),
]


def has_steps(start: Start, nested: Nesting, scope: Scope) -> bool:
    runs = scope.runtime and (start.running or OFF) is not nested
    return runs or (scope.boot and start.told is not nested)


PLANS = [
    pytest.param(start, steps.Wish(nested, scope), id=f"{nested}-{scope}-from-{start}")
    for nested in (ON, OFF)
    for scope in Scope
    for start in STARTS
    if has_steps(start, nested, scope)
]


RELOADS = [
    pytest.param(start, steps.Wish(nested, scope), id=f"{nested}-{scope}-from-{start}")
    for nested in (ON, OFF)
    for scope in (Scope.BOTH, Scope.RUNTIME)
    for start in STARTS
    if (start.running or OFF) is not nested
]


def away(tree: Tree) -> None:
    """Somebody who wants it not at all."""
    if tree.root.exists("/sys/module/kvm_amd"):
        remove(tree, "kvm_amd")
