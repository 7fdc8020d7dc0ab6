# SPDX-License-Identifier: LGPL-2.1-or-later
"""A plan carried out on a tree with fake tools: done and read back, or undone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from nestd import errors
from nestd.model import Nesting, Scope
from nestd.nesting import change, dropin, plan
from nestd.nesting.status import Reading
from tests.nesting.machines import Machine
from tests.support.tree import Tree

ON, OFF = Nesting.ON, Nesting.OFF


def make(machine: Machine, nested: Nesting, scope: Scope = Scope.BOTH) -> Reading:
    """Plan and carry out."""
    todo = plan.make(machine.read(), plan.Wish(nested, scope), ())
    return asyncio.run(change.carry_out(machine.host, todo, machine.read))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """An AMD machine with nesting on."""
    return Machine.of(Tree(tmp_path).amd().module("kvm_amd"))


def test_off_and_on(machine: Machine) -> None:
    status = make(machine, OFF).status
    assert (status.nested, status.nested_at_boot, status.parameters["nested"]) == (OFF, OFF, "0")
    assert machine.tree.read(dropin.PATH).endswith("options kvm_amd nested=0\n")
    status = make(machine, ON).status
    assert (status.nested, status.nested_at_boot) == (ON, ON)
    # the driver alone was touched
    assert [call[:3] for call in machine.tools.calls()] == [
        ["rmmod", "--", "kvm_amd"],
        ["modprobe", "--", "kvm_amd"],
    ] * 2
    assert (machine.tree.top / dropin.PATH.lstrip("/")).stat().st_mode & 0o7777 == 0o644


def test_boot_alone_leaves_the_driver(machine: Machine) -> None:
    status = make(machine, OFF, Scope.BOOT).status
    assert (status.nested, status.nested_at_boot) == (ON, OFF)
    assert machine.tools.calls() == []


def test_runtime_alone_leaves_the_files(machine: Machine) -> None:
    status = make(machine, OFF, Scope.RUNTIME).status
    assert (status.nested, status.nested_at_boot) == (OFF, ON)
    assert not machine.host.root.exists(dropin.PATH)


def test_an_unloaded_driver_is_loaded(tmp_path: Path) -> None:
    machine = Machine.of(Tree(tmp_path).amd())
    assert make(machine, ON).status.nested is ON


@pytest.mark.parametrize("before", [None, "options kvm_amd nested=1\n"])
@pytest.mark.parametrize(
    ("tool", "words"),
    [
        ("rmmod", "ERROR: Module kvm_amd is wedged"),
        ("modprobe", "ERROR: could not insert 'kvm_amd': Exec format error"),
    ],
)
def test_a_failing_tool_leaves_the_old_state(
    machine: Machine, tool: str, words: str, before: str | None
) -> None:
    if before:
        machine.tree.write(dropin.PATH, before)
    state = machine.state()
    machine.tools.fail(tool, "kvm_amd", code=1, words=words)
    with pytest.raises(errors.ReloadFailed, match="The old state is back") as raised:
        make(machine, OFF)
    assert words in str(raised.value)
    assert machine.state() == state


@pytest.mark.parametrize("tool", ["rmmod", "modprobe"])
def test_a_tool_that_claims_success_and_did_nothing_is_found_out(machine: Machine, tool: str) -> None:
    state = machine.state()
    # rmmod is tried again, as udev may have loaded the driver in between; modprobe is not.
    for _ in range({"rmmod": 3, "modprobe": 1}[tool]):
        machine.tools.fail(tool, "kvm_amd", idle=True)
    with pytest.raises(errors.ReloadFailed):
        make(machine, OFF)
    assert machine.state() == state


@pytest.mark.parametrize("tool", ["rmmod", "modprobe"])
def test_a_missing_tool_is_named(machine: Machine, tool: str) -> None:
    state = machine.state()
    machine.tools.without(tool)
    with pytest.raises(errors.ReloadFailed, match=f"{tool} is not installed.*old state"):
        make(machine, OFF)
    assert machine.state() == state


def test_taken_into_use_after_the_plan(machine: Machine) -> None:
    todo = plan.make(machine.read(), plan.Wish(OFF, Scope.BOTH), ())
    machine.tree.write("/sys/module/kvm_amd/refcnt", "1\n")
    machine.tree.process(
        4711, "qemu-system-x86", "anon_inode:kvm-vm", cgroup="0::/machine.slice/machine-x.scope\n"
    )
    state = machine.state()
    with pytest.raises(errors.InUse, match=r"qemu-system-x86 \(pid 4711 in machine-x.scope\)"):
        asyncio.run(change.carry_out(machine.host, todo, machine.read))
    assert machine.state() == state


def test_undoing_that_fails_is_said_with_what_is_loaded(machine: Machine) -> None:
    for _ in range(2):
        machine.tools.fail("modprobe", "kvm_amd", code=1, words="ERROR: no")
    with pytest.raises(errors.RollbackFailed, match="kvm_amd is unloaded"):
        make(machine, OFF)
    # what could be undone was undone
    assert not machine.host.root.exists(dropin.PATH)


def test_a_folder_that_cannot_be_written_changes_nothing(machine: Machine) -> None:
    folder = machine.tree.top / "etc/modprobe.d"
    folder.rmdir()
    folder.write_text("not a folder")
    state = machine.state()
    todo = plan.Plan(
        plan.Wish(OFF, Scope.BOTH),
        plan.make(_elsewhere(machine), plan.Wish(OFF, Scope.BOTH), ()).steps,
    )
    with pytest.raises(errors.ReloadFailed, match="The change failed"):
        asyncio.run(change.carry_out(machine.host, todo, machine.read))
    assert machine.state() == state
    assert machine.tools.calls() == []


def _elsewhere(machine: Machine) -> Reading:
    """A reading of the machine as it was before its folder broke."""
    folder = machine.tree.top / "etc/modprobe.d"
    folder.unlink()
    folder.mkdir()
    reading = machine.read()
    folder.rmdir()
    folder.write_text("not a folder")
    return reading


def test_a_planted_link_is_not_followed(machine: Machine) -> None:
    victim = machine.tree.top / "victim"
    victim.write_text("precious")
    link = machine.tree.path(dropin.PATH)
    link.symlink_to(victim)
    with pytest.raises(errors.BusError, match=r"zz-nestd\.conf.*The old state is back"):
        make(machine, OFF)
    assert link.is_symlink() and victim.read_text() == "precious"
    assert machine.read().status.nested is ON


def test_an_autoload_in_between_is_survived(machine: Machine) -> None:
    """udev loads the driver before our modprobe: that one then returns 0 and changes nothing."""
    race = machine.tools.folder / "rmmod"
    real = machine.tools.folder / "rmmod.real"
    race.rename(real)
    # rmmod unloads; in the same moment udev's modprobe, without arguments, loads it again. Once.
    race.write_text(
        f"#!/bin/sh\nPATH=/usr/bin:/bin; mv {race} {race}.done && ln {real} {race}\n"
        f'{machine.tools.folder}/rmmod "$@" && exec {machine.tools.folder}/modprobe -- kvm_amd\n'
    )
    race.chmod(0o755)
    assert make(machine, OFF, Scope.RUNTIME).status.nested is OFF
