# SPDX-License-Identifier: LGPL-2.1-or-later
"""The back end for bootc, with a fake that stages deployments as ostree does."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from nestd import errors
from nestd.host import ostree
from nestd.nesting.loaders.bootc import Bootc
from nestd.nesting.loaders.probe import Fit
from nestd.nesting.own import Own
from nestd.text.arguments import Edit
from tests.nesting.loaders import silverblue
from tests.nesting.loaders.silverblue import START, change, next_boot, reboot
from tests.nesting.machines import Machine
from tests.support import loop

ON = Edit(("kvm_amd.nested=1",))
LOADER = Bootc()
SET = ("bootc", "loader-entries", "set-options-for-source", "--source", "nestd")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = silverblue.installed(tmp_path)
    silverblue.program(made, "bootc")
    return made


def test_probe(machine: Machine) -> None:
    assert loop.run(LOADER.probe(machine.host, None)).fit is Fit.FITS
    silverblue.program(machine, "rpm-ostree")
    assert "rpm-ostree" in loop.run(LOADER.probe(machine.host, None)).why
    machine.tools.without("rpm-ostree")
    machine.tree.write("/.kernel/old-bootc", "")
    found = loop.run(LOADER.probe(machine.host, None))
    assert (found.fit, "/usr/lib/bootc/kargs.d/10-nestd.toml" in found.why) == (Fit.UNSURE, True)
    (machine.tools.folder / "bootc").write_text("not a program")
    assert loop.run(LOADER.probe(machine.host, None)).fit is Fit.UNSURE
    machine.tools.without("bootc")
    assert loop.run(LOADER.probe(machine.host, None)).fit is Fit.NOT
    machine.tree.gone(ostree.BOOTED)
    assert "was not booted" in loop.run(LOADER.probe(machine.host, None)).why


@pytest.mark.parametrize("rebooted", [False, True])
def test_on_off_and_back(machine: Machine, rebooted: bool) -> None:
    own, todo = change(machine, LOADER, Own(), ON)
    assert [(step.argv, step.undo) for step in todo] == [((*SET, "--options", "kvm_amd.nested=1"), SET)]
    assert next_boot(machine) == (*START, "kvm_amd.nested=1")
    if rebooted:
        reboot(machine)
        assert "x-options-source-nestd kvm_amd.nested=1\n" in machine.tree.read(
            "/boot/loader/entries/ostree-2.conf"
        )
    own, todo = change(machine, LOADER, own, Edit(("kvm_amd.nested=0",)))
    assert [step.undo for step in todo] == [(*SET, "--options", "kvm_amd.nested=1")]
    assert next_boot(machine) == (*START, "kvm_amd.nested=0")
    own, todo = change(machine, LOADER, own, Edit())
    assert [step.argv for step in todo] == [SET]
    assert own == Own()
    assert next_boot(machine) == START


def test_other_sources_stay(machine: Machine) -> None:
    other = (
        "bootc",
        "loader-entries",
        "set-options-for-source",
        "--source",
        "tuned",
        "--options",
        "isolcpus=1",
    )
    assert loop.run(machine.host.commands.run(*other)).code == 0
    own, _ = change(machine, LOADER, Own(), ON)
    change(machine, LOADER, own, Edit())
    reboot(machine)
    assert next_boot(machine) == (*START, "isolcpus=1")
    assert "x-options-source-tuned isolcpus=1\n" in machine.tree.read("/boot/loader/entries/ostree-2.conf")


def test_what_was_there_is_not_taken(tmp_path: Path) -> None:
    machine = silverblue.installed(tmp_path, (*START, "kvm_amd.nested=1"))
    silverblue.program(machine, "bootc")
    assert change(machine, LOADER, Own(), ON) == (Own(), ())


def test_somebody_elses_cannot_be_taken_away(tmp_path: Path) -> None:
    machine = silverblue.installed(tmp_path, ("kvm-amd.nested=0", *START))
    silverblue.program(machine, "bootc")
    with pytest.raises(errors.Overridden, match=r"ostree-2.conf:3 has kvm-amd.nested=0.*kargs\.d"):
        loop.run(LOADER.steps(machine.host, Own(), Edit(("kvm_amd.nested=1",), ("kvm_amd.nested=0",))))


def test_no_entry(machine: Machine) -> None:
    machine.tree.gone("/boot/loader/entries")
    with pytest.raises(errors.BootloaderFailed, match="bootc status"):
        loop.run(LOADER.steps(machine.host, Own(), ON))


def test_the_script(machine: Machine) -> None:
    own, _ = change(machine, LOADER, Own(), ON)
    for _ in range(2):
        lines = LOADER.script(own)
        subprocess.run(["/bin/sh", "-eu", "-c", lines], env={"PATH": str(machine.tools.folder)}, check=True)
        assert next_boot(machine) == START
    assert LOADER.script(Own()) == ""


@pytest.mark.parametrize("seed", range(5))
def test_any_start_comes_back(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    words = (*START, "kvm_amd.nested=0", "kvm_amd.nested=1", "kvm-amd.nested=1", "a=b=c", "quiet")
    start = tuple(chance.choices(words, k=chance.randint(1, 8)))
    machine = silverblue.installed(tmp_path, start)
    silverblue.program(machine, "bootc")
    own = Own()
    for _ in range(chance.randint(1, 3)):
        own, _ = change(machine, LOADER, own, Edit((f"kvm_amd.nested={chance.randint(0, 1)}",)))
        if chance.random() < 0.3 and machine.tree.root.exists(ostree.STAGED):
            reboot(machine)
    own, _ = change(machine, LOADER, own, Edit())
    assert (own, next_boot(machine)) == (Own(), start)
