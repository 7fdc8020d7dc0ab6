# SPDX-License-Identifier: LGPL-2.1-or-later
"""A plan carried out on a tree with fake tools: done and read back, or undone."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from nestd import errors
from nestd.model import Nesting, Scope
from nestd.nesting import change, dropin, plan, steps
from nestd.nesting.ledger import Ledger
from nestd.nesting.status import Reading
from nestd.nesting.store import CHANGE
from tests.nesting.machines import Machine
from tests.support import loop
from tests.support.tree import Tree

ON, OFF = Nesting.ON, Nesting.OFF


def make(machine: Machine, nested: Nesting, scope: Scope = Scope.BOTH) -> Reading:
    """Plan and carry out."""
    todo = loop.run(plan.make(machine.host, machine.read(), steps.Wish(nested, scope), ()))
    return carry_out(machine, todo)


def carry_out(machine: Machine, todo: steps.Plan) -> Reading:
    """With a ledger, which is closed whenever all is in order."""
    ledger = Ledger(machine.host.root, machine.host.release)
    try:
        return loop.run(change.carry_out(machine.host, ledger, todo, machine.read))
    finally:
        stuck = ledger.record is not None
        assert stuck == machine.host.root.exists(CHANGE)


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
    # Each is tried again, as udev may have loaded the driver in between.
    for _ in range({"rmmod": 6, "modprobe": 5}[tool]):
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
    todo = loop.run(plan.make(machine.host, machine.read(), steps.Wish(OFF, Scope.BOTH), ()))
    machine.tree.write("/sys/module/kvm_amd/refcnt", "1\n")
    machine.tree.process(
        4711, "qemu-system-x86", "anon_inode:kvm-vm", cgroup="0::/machine.slice/machine-x.scope\n"
    )
    state = machine.state()
    with pytest.raises(errors.InUse, match=r"qemu-system-x86 \(pid 4711 in machine-x.scope\)"):
        carry_out(machine, todo)
    assert machine.state() == state


def test_undoing_that_fails_is_said_with_what_is_loaded(machine: Machine) -> None:
    for _ in range(3):
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
    todo = steps.Plan(
        steps.Wish(OFF, Scope.BOTH),
        loop.run(plan.make(machine.host, _elsewhere(machine), steps.Wish(OFF, Scope.BOTH), ())).steps,
    )
    with pytest.raises(errors.ReloadFailed, match="The change failed"):
        carry_out(machine, todo)
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


def test_a_parameter_that_differs_from_a_plain_load_is_kept(tmp_path: Path) -> None:
    machine = Machine.of(Tree(tmp_path).amd().module("kvm_amd", npt="N"))
    machine.tree.write("/sys/module/kvm/parameters/halt_poll_ns", "12345\n")
    assert make(machine, OFF).status.parameters == {"nested": "0", "npt": "N", "avic": "N"}
    assert make(machine, ON).status.parameters == {"nested": "1", "npt": "N", "avic": "N"}
    assert machine.tree.read("/sys/module/kvm/parameters/halt_poll_ns") == "12345\n"
    # plain, seen to differ, and once more
    loads = [call[3:] for call in machine.tools.calls() if call[0] == "modprobe"]
    assert loads == [["nested=0"], ["nested=0", "npt=N"], ["nested=1"], ["nested=1", "npt=N"]]


def test_a_parameter_that_cannot_be_given_as_it_is_shown_follows_by_itself(tmp_path: Path) -> None:
    tree = Tree(tmp_path).intel()
    tree.loadable("kvm_intel", needs=("kvm",), extension="vmx", nested="Y", vmentry_l1d_flush="not required")
    machine = Machine.of(tree.module("kvm_intel"))
    assert make(machine, OFF).status.parameters == {"nested": "N", "vmentry_l1d_flush": "not required"}
    assert len(machine.tools.calls()) == 2


def test_a_parameter_that_the_driver_decides_itself_is_no_failure(tmp_path: Path) -> None:
    """kvm_intel's enable_shadow_vmcs: without such a CPU, nesting on makes it N whatever is given."""
    tree = Tree(tmp_path).intel()
    tree.loadable("kvm_intel", needs=("kvm",), extension="vmx", nested="Y", enable_shadow_vmcs="Y")
    machine = Machine.of(tree.module("kvm_intel", nested="N", enable_shadow_vmcs="Y"))
    modprobe = machine.tools.folder / "modprobe"
    real = tmp_path / ".kernel/real/modprobe"
    real.parent.mkdir()
    modprobe.rename(real)
    shown = tmp_path / "sys/module/kvm_intel/parameters/enable_shadow_vmcs"
    modprobe.write_text(f'#!/bin/sh\n{real} "$@" || exit\ncase "$*" in *nested=1*) echo N > {shown};; esac\n')
    modprobe.chmod(0o755)
    assert make(machine, ON).status.parameters == {"nested": "Y", "enable_shadow_vmcs": "N"}


def test_a_parameter_that_the_kernel_refuses_brings_the_old_state_back(machine: Machine) -> None:
    """Given by hand, it was taken once; now the driver takes it no more. The switch counts more."""
    machine.tree.write("/sys/module/kvm_amd/parameters/avic", "2\n")
    with pytest.raises(errors.RollbackFailed, match="kvm_amd is loaded as before, but without avic=2"):
        make(machine, OFF)
    status = machine.read().status
    assert (status.nested, status.nested_at_boot, status.parameters["avic"]) == (ON, ON, "N")


def test_off_is_kvms_own_word(machine: Machine) -> None:
    """The parameter says 0; if KVM cannot be asked afterwards, nothing is promised."""
    todo = loop.run(plan.make(machine.host, machine.read(), steps.Wish(OFF, Scope.BOTH), ()))
    state = machine.state()
    machine.kvm.refuse(errno.ENODEV)
    with pytest.raises(errors.ReloadFailed, match="KVM itself does not say that guests get no svm"):
        carry_out(machine, todo)
    assert machine.state() == state
