# SPDX-License-Identifier: LGPL-2.1-or-later
"""One change at a time, who is told of it, and the records that outlive it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nestd import errors, tasks
from nestd.host import files
from nestd.model import Nesting, Scope, Verdict
from nestd.nesting.changer import Changer
from nestd.nesting.circumstances import Circumstances
from nestd.nesting.observer import Observer
from nestd.nesting.steps import Wish
from nestd.nesting.store import CHANGE, LASTING, THIS_BOOT, Store
from tests.nesting.machines import Machine
from tests.support import loop
from tests.support.tree import Tree

ON, OFF = Nesting.ON, Nesting.OFF
DISABLE, ENABLE = Wish(OFF, Scope.BOTH), Wish(ON, Scope.BOTH)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """An AMD machine with nesting on."""
    return Machine.of(Tree(tmp_path).amd().module("kvm_amd"))


def changer_of(machine: Machine) -> tuple[Changer, list[Wish]]:
    """A changer, and the wishes that it tells as fulfilled."""
    changer = Changer(machine.host, Observer(machine.host, Circumstances("none"), lambda _, __: None))
    told: list[Wish] = []
    changer.on_end.append(told.append)
    return changer, told


def test_those_who_listen_are_told_what_is_fulfilled(machine: Machine) -> None:
    changer, told = changer_of(machine)

    async def scene() -> None:
        await changer.change(DISABLE, dry_run=True)
        assert told == []
        assert (await changer.change(DISABLE, dry_run=False)).changed
        # It is so already: that is fulfilled too.
        assert not (await changer.change(DISABLE, dry_run=False)).changed
        for _ in range(2):
            machine.tools.fail("rmmod", "kvm_amd", code=1, words="no")
        with pytest.raises(errors.ReloadFailed):
            await changer.change(ENABLE, dry_run=False)

    loop.run(scene())
    assert told == [DISABLE, DISABLE]
    assert changer.busy == ""


def test_a_second_one_is_told_what_runs(machine: Machine) -> None:
    changer, told = changer_of(machine)
    machine.tools.fail("rmmod", "kvm_amd", hang=0.3)
    busy: list[str] = []
    changer.on_end.append(lambda _: busy.append(changer.busy))

    async def scene() -> None:
        first = tasks.create_task(changer.change(DISABLE, dry_run=False))
        await tasks.sleep(0)
        await tasks.sleep(0)
        assert changer.busy == "turning nesting off, both"
        with pytest.raises(errors.Busy, match="turning nesting off, both"):
            await changer.change(ENABLE, dry_run=False)
        [check] = changer.checks()
        assert (check.id, check.verdict) == ("change", Verdict.PASS) and changer.busy in check.message
        # Its caller leaves; it goes on.
        first.cancel()
        await changer.settle()

    loop.run(scene())
    assert told == [DISABLE] and busy == [""]
    assert machine.read().status.nested is OFF


def test_what_was_interrupted_is_finished_and_told(machine: Machine) -> None:
    """The record is one that a daemon left that was killed in its first step."""
    before, told_before = changer_of(machine)
    for _ in range(9):
        machine.tools.fail("modprobe", "kvm_amd", code=1, words="no")
    with pytest.raises(errors.RollbackFailed):
        loop.run(before.change(DISABLE, dry_run=False))
    assert before.checks()[0].verdict is Verdict.FAIL
    left = json.loads(machine.tree.read(CHANGE))
    assert left["phase"] == "stuck"
    machine.tree.write(CHANGE, json.dumps(left | {"phase": "doing", "trouble": [], "begun": 1, "ended": 0}))
    machine.tree.gone("/.kernel/failures")

    after, told = changer_of(machine)
    assert after.interrupted
    loop.run(after.heal())
    assert told == [DISABLE] and told_before == []
    assert not machine.tree.root.exists(CHANGE)
    assert after.checks()[0].verdict is Verdict.PASS
    assert machine.read().status.nested is OFF


def test_a_record_that_strangers_could_write_is_not_believed(machine: Machine) -> None:
    machine.tree.write(CHANGE, "{}").path(CHANGE).chmod(0o666)
    changer, told = changer_of(machine)
    loop.run(changer.heal())
    assert told == [] and machine.tree.read(CHANGE) == "{}"
    loop.run(changer.change(DISABLE, dry_run=False))
    assert not machine.tree.root.exists(CHANGE)


@pytest.mark.parametrize(("folder", "mode"), [(LASTING, 0o700), (THIS_BOOT, 0o755)])
def test_a_store(machine: Machine, folder: str, mode: int) -> None:
    store = Store(machine.host.root, folder)
    assert store.load("x") is None
    store.save("x", {"text": "\udc80ü", "number": 1})
    assert store.load("x") == {"text": "\udc80ü", "number": 1}
    assert machine.tree.path(store.path("x")).stat().st_mode & 0o777 == 0o600
    assert machine.tree.path(folder).stat().st_mode & 0o777 == mode
    store.save("x", {})
    assert store.load("x") == {}
    store.forget("x")
    store.forget("x")
    assert store.load("x") is None


@pytest.mark.parametrize("text", ["", "[1]", "{", "[" * 100_000, "\udcff"])
def test_a_broken_record_is_set_aside(machine: Machine, text: str) -> None:
    store = Store(machine.host.root, LASTING)
    machine.tree.write(store.path("x"), text)
    assert store.load("x") is None
    assert files.names(machine.host.root, LASTING) == ("x.broken",)
    assert files.read(machine.host.root, store.path("x.broken")) == text
