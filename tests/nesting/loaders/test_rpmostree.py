# SPDX-License-Identifier: LGPL-2.1-or-later
"""The back end for rpm-ostree, with a fake that stages deployments as ostree does."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from nestd import errors
from nestd.host import bootloader, ostree
from nestd.nesting.loaders.probe import Fit
from nestd.nesting.loaders.rpmostree import RpmOstree
from nestd.nesting.own import Own
from nestd.text.arguments import Edit
from tests.nesting.loaders import silverblue
from tests.nesting.loaders.silverblue import START, change, next_boot, reboot
from tests.nesting.machines import Machine
from tests.support import loop

ON = Edit(("kvm_amd.nested=1",))
OFF = Edit(("kvm_amd.nested=0",), ("kvm_amd.nested=1",))
LOADER = RpmOstree()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = silverblue.installed(tmp_path)
    silverblue.program(made, "rpm-ostree")
    return made


def test_probe(machine: Machine) -> None:
    assert loop.run(LOADER.probe(machine.host, None)).fit is Fit.FITS
    machine.tools.without("rpm-ostree")
    assert loop.run(LOADER.probe(machine.host, None)).fit is Fit.NOT
    machine.tree.gone(ostree.BOOTED)
    assert "was not booted" in loop.run(LOADER.probe(machine.host, None)).why


@pytest.mark.parametrize("rebooted", [False, True])
def test_on_off_and_back(machine: Machine, rebooted: bool) -> None:
    own, todo = change(machine, LOADER, Own(), ON)
    assert [step.argv for step in todo] == [("rpm-ostree", "kargs", "--append-if-missing=kvm_amd.nested=1")]
    assert [step.undo for step in todo] == [("rpm-ostree", "kargs", "--delete-if-present=kvm_amd.nested=1")]
    assert next_boot(machine) == (*START, "kvm_amd.nested=1")
    found = bootloader.read(machine.tree.root)
    assert found is not None
    assert found.source == ostree.STAGED
    if rebooted:
        reboot(machine)
        assert next_boot(machine) == (*START, "kvm_amd.nested=1")
    own, todo = change(machine, LOADER, own, Edit(("kvm_amd.nested=0",)))
    assert len(todo) == 1
    assert next_boot(machine) == (*START, "kvm_amd.nested=0")
    own, _ = change(machine, LOADER, own, Edit())
    assert own == Own()
    assert next_boot(machine) == START


def test_undone_by_the_steps_own_command(machine: Machine) -> None:
    _, todo = change(machine, LOADER, Own(), ON)
    for _ in range(2):
        assert loop.run(machine.host.commands.run(*todo[0].undo)).code == 0
        assert next_boot(machine) == START


def test_what_was_there_is_not_taken(tmp_path: Path) -> None:
    machine = silverblue.installed(tmp_path, (*START, "kvm_amd.nested=1"))
    silverblue.program(machine, "rpm-ostree")
    assert change(machine, LOADER, Own(), ON) == (Own(), ())


def test_somebody_elses_comes_back_at_the_end(tmp_path: Path) -> None:
    machine = silverblue.installed(tmp_path, ("kvm-amd.nested=1", *START))
    silverblue.program(machine, "rpm-ostree")
    own, _ = change(machine, LOADER, Own(), OFF)
    assert own.removed == ("kvm-amd.nested=1",)
    assert next_boot(machine) == (*START, "kvm_amd.nested=0")
    change(machine, LOADER, own, Edit())
    assert next_boot(machine) == (*START, "kvm-amd.nested=1")


def test_busy(machine: Machine) -> None:
    todo, _ = loop.run(LOADER.steps(machine.host, Own(), ON))
    machine.tree.write("/.kernel/transaction", "upgrade")
    with pytest.raises(errors.Busy, match=r"transaction under way \(upgrade\).*nothing was changed"):
        loop.run(LOADER.steps(machine.host, Own(), ON))
    done = loop.run(machine.host.commands.run(*todo[0].argv))  # type: ignore[union-attr]
    assert (done.code, "Transaction in progress: upgrade" in done.err) == (1, True)


@pytest.mark.parametrize("code", [1, 77])
def test_its_failure_is_told(machine: Machine, code: int) -> None:
    path = machine.tools.folder / "rpm-ostree"
    path.write_text(f"#!/bin/sh\necho 'error: no daemon' >&2\nexit {code}\n")
    with pytest.raises(errors.ToolFailed, match="no daemon"):
        loop.run(LOADER.steps(machine.host, Own(), ON))


def test_the_script(tmp_path: Path) -> None:
    machine = silverblue.installed(tmp_path, ("kvm_amd.nested=1", *START))
    silverblue.program(machine, "rpm-ostree")
    own, _ = change(machine, LOADER, Own(), OFF)
    for _ in range(2):
        lines = LOADER.script(own)
        subprocess.run(["/bin/sh", "-eu", "-c", lines], env={"PATH": str(machine.tools.folder)}, check=True)
        assert next_boot(machine) == (*START, "kvm_amd.nested=1")
    assert LOADER.script(Own()) == ""


WORDS = (
    *START,
    "kvm_amd.nested=0",
    "kvm_amd.nested=1",
    "kvm-amd.nested=1",
    "a=b=c",
    "console=ttyS0",
    "console=tty0",
)


@pytest.mark.parametrize("seed", range(6))
def test_any_start_comes_back(tmp_path: Path, seed: int) -> None:
    """The same words; and in their order, where nothing of somebody else's was taken away."""
    chance = random.Random(seed)
    start = tuple(chance.sample(WORDS, k=chance.randint(1, 8)))
    machine = silverblue.installed(tmp_path, start)
    silverblue.program(machine, "rpm-ostree")
    own, taken = Own(), False
    for _ in range(chance.randint(1, 3)):
        value = chance.randint(0, 1)
        replaced = (f"kvm_amd.nested={1 - value}",) if chance.random() < 0.6 else ()
        own, _ = change(machine, LOADER, own, Edit((f"kvm_amd.nested={value}",), replaced))
        taken = taken or bool(own.removed)
        if chance.random() < 0.3 and machine.tree.root.exists(ostree.STAGED):
            reboot(machine)
    own, _ = change(machine, LOADER, own, Edit())
    assert own == Own()
    assert next_boot(machine) == start if not taken else sorted(next_boot(machine)) == sorted(start)
