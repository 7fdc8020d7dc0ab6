# SPDX-License-Identifier: LGPL-2.1-or-later
"""The back end for plain ostree, with the real ostree on a system that it made."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from nestd import errors
from nestd.host import bootloader, ostree
from nestd.nesting.loaders import advice
from nestd.nesting.loaders.ostree import Ostree
from nestd.nesting.loaders.probe import Fit
from nestd.nesting.own import Own
from nestd.nesting.steps import Run, Step
from nestd.text import cmdline, staged
from nestd.text.arguments import Edit
from tests.support import loop
from tests.support.deployed import Deployed

START = ("root=LABEL=x", "ro", "quiet", "console=tty0", "console=ttyS0,115200", 'dyndbg="file a +p"', "quiet")
ON = Edit(("kvm_amd.nested=1",))
OFF = Edit(("kvm_amd.nested=0",), ("kvm_amd.nested=1",))


def steps(system: Deployed, own: Own, wanted: Edit) -> tuple[tuple[Step, ...], Own]:
    return loop.run(Ostree().steps(system.machine.host, own, wanted))


def change(system: Deployed, own: Own, wanted: Edit) -> Own:
    """Have it so, twice; then nothing is to be done any more."""
    todo, after = steps(system, own, wanted)
    system.carry_out(*todo)
    once = system.options
    system.carry_out(*todo)
    assert system.options == once
    assert steps(system, after, wanted) == ((), after)
    return after


def next_boot(system: Deployed) -> tuple[str, ...]:
    found = bootloader.read(system.tree.root)
    assert found is not None
    assert not found.doubt
    return tuple(word for word in cmdline.words(found.command_line) if not word.startswith("ostree="))


def test_it_fits(tmp_path: Path) -> None:
    system = Deployed(tmp_path, *START)
    probe = loop.run(Ostree().probe(system.machine.host, None))
    assert probe.fit is Fit.FITS
    assert "/boot/loader/entries/ostree-1-debian.conf" in probe.why


@pytest.mark.parametrize(
    ("program", "body", "fit", "why"),
    [
        ("rpm-ostree", "", Fit.NOT, "rpm-ostree"),
        ("bootc", "echo 'set-options-for-source  Set or update'", Fit.NOT, "bootc"),
        ("bootc", "echo 'unrecognized subcommand' >&2; exit 2", Fit.UNSURE, "kargs.d"),
    ],
)
def test_others_come_first(tmp_path: Path, program: str, body: str, fit: Fit, why: str) -> None:
    system = Deployed(tmp_path, *START)
    system.install(program, body)
    probe = loop.run(Ostree().probe(system.machine.host, None))
    assert probe.fit is fit
    assert why in probe.why


def test_elsewhere(tmp_path: Path) -> None:
    system = Deployed(tmp_path, *START)
    system.tree.path("/boot/loader").unlink()
    assert "no entry" in loop.run(Ostree().probe(system.machine.host, None)).why
    with pytest.raises(errors.BootloaderFailed, match="no entry that ostree wrote"):
        steps(system, Own(), ON)
    system.machine.tools.without("ostree")
    assert "ostree is not installed" in loop.run(Ostree().probe(system.machine.host, None)).why
    system.tree.gone(ostree.BOOTED)
    assert "was not booted" in loop.run(Ostree().probe(system.machine.host, None)).why


def test_what_is_advised_works(tmp_path: Path) -> None:
    system = Deployed(tmp_path, *START)
    for wanted in ON, OFF:
        text = advice.by_hand(system.tree.root, None, wanted)
        command = text.partition("or without rpm-ostree ")[2].partition(", then reboot")[0]
        if wanted is OFF:
            taken = (
                "Take kvm_amd.nested=1 off the options of its entry in /boot/loader/entries and add kvm_amd.n"
            )
            assert taken in text
            new = (*START, *wanted.add)
            command, line = command.partition(" with ")[0], [f"--append={word}" for word in new]
        else:
            new, line = (*START, *wanted.add), []
        system.run(*command.split(), *line)
        assert next_boot(system) == new


def test_on_off_and_back(tmp_path: Path) -> None:
    system = Deployed(tmp_path, *START)
    assert next_boot(system) == START
    own = change(system, Own(), ON)
    assert next_boot(system) == (*START, "kvm_amd.nested=1")
    assert (own.loader, own.added, own.removed) == ("ostree", ("kvm_amd.nested=1",), ())
    own = change(system, own, Edit(("kvm_amd.nested=0",)))
    assert next_boot(system) == (*START, "kvm_amd.nested=0")
    own = change(system, own, Edit())
    assert system.options == " ".join(START)
    assert own == Own()


def test_undone_by_the_steps_own_command(tmp_path: Path) -> None:
    system = Deployed(tmp_path, *START)
    todo, _ = steps(system, Own(), ON)
    system.carry_out(*todo)
    [step] = todo
    assert isinstance(step, Run)
    for _ in range(2):
        system.run(*step.undo)
        assert system.options == " ".join(START)


def test_the_deployment_that_is_booted_stays(tmp_path: Path) -> None:
    """ostree= is in the line that is set, and gets its new value in its old place."""
    system = Deployed(tmp_path, "ostree=/ostree/boot.0/debian/old/0", *START)
    change(system, Own(), ON)
    entry = ostree.default(system.tree.root)
    assert entry is not None
    first, *rest = cmdline.words(entry.options)
    assert system.top.joinpath(first.removeprefix("ostree=").lstrip("/")).exists()
    assert tuple(rest) == (*START, "kvm_amd.nested=1")


def test_somebody_elses_comes_back_to_its_place(tmp_path: Path) -> None:
    start = ("root=LABEL=x", "kvm-amd.nested=1", "quiet")
    system = Deployed(tmp_path, *start)
    own = change(system, Own(), OFF)
    assert next_boot(system) == ("root=LABEL=x", "quiet", "kvm_amd.nested=0")
    assert own.removed == ("kvm-amd.nested=1",)
    change(system, own, Edit())
    assert system.options == " ".join(start)


def test_what_was_there_is_not_taken(tmp_path: Path) -> None:
    start = ("root=LABEL=x", "kvm_amd.nested=1", "quiet")
    system = Deployed(tmp_path, *start)
    todo, own = steps(system, Own(), ON)
    assert (todo, own) == ((), Own())


def test_what_somebody_did_meanwhile_stays(tmp_path: Path) -> None:
    system = Deployed(tmp_path, "root=LABEL=x", "kvm_amd.nested=1", "quiet")
    own = change(system, Own(), OFF)
    system.set("root=LABEL=y", "kvm_amd.nested=0", "debug")
    change(system, own, Edit())
    assert next_boot(system) == ("root=LABEL=y", "debug", "kvm_amd.nested=1")


def test_only_the_first_deployment_changes(tmp_path: Path) -> None:
    system = Deployed(tmp_path, *START)
    system.deploy()
    change(system, Own(), ON)
    entries = {path.name: path.read_text() for path in (system.top / "boot/loader/entries").iterdir()}
    assert ["nested" in entries[name] for name in sorted(entries)] == [False, True]
    assert next_boot(system)[-1] == "kvm_amd.nested=1"


def test_the_script(tmp_path: Path) -> None:
    system = Deployed(tmp_path, "root=LABEL=x", "kvm_amd.nested=1", *START)
    before = system.options
    own = change(system, Own(), OFF)
    for _ in range(2):
        system.script(Ostree().script(own))
        assert system.options == before
    change(system, Own(), OFF)
    system.set("root=LABEL=y", "kvm_amd.nested=0", 'dyndbg="file a +p"', "kvm_amd.nested=0")
    for _ in range(2):
        system.script(Ostree().script(own))
        assert system.options == 'root=LABEL=y dyndbg="file a +p" kvm_amd.nested=1'
    assert Ostree().script(Own()) == ""


def test_a_staged_update(tmp_path: Path) -> None:
    """As the real ostree stages one: it is what is booted next, and it must be booted first."""
    system = Deployed(tmp_path, *START)
    data = system.stage("kvm_amd.nested=1", 'a="b c"')
    found = staged.parse(data)
    assert found.words[-2:] == ("kvm_amd.nested=1", 'a="b c"')
    assert system.tree.root.exists(f"{found.folder}/usr/lib/modules")
    system.tree.path("/run/ostree").mkdir()
    system.tree.path(ostree.STAGED).write_bytes(data)
    following = bootloader.read(system.tree.root)
    assert following is not None
    assert (following.loader, following.source) == ("ostree", ostree.STAGED)
    assert following.command_line.endswith('kvm_amd.nested=1 a="b c"')
    assert following.initrd.startswith(found.folder)
    with pytest.raises(errors.BootloaderFailed, match="Reboot into it"):
        steps(system, Own(), ON)
    system.tree.write(ostree.LOCKED, "")
    assert next_boot(system) == START


WORDS = (*START, "kvm_amd.nested=0", "kvm_amd.nested=1", "kvm-amd.nested=1", "kvm.x", "a=b=c", "x")


def wishes(chance: random.Random) -> Iterable[Edit]:
    for _ in range(chance.randint(1, 3)):
        value = chance.randint(0, 1)
        yield Edit(
            (f"kvm_amd.nested={value}",), (f"kvm_amd.nested={1 - value}",) if chance.random() < 0.6 else ()
        )


@pytest.mark.parametrize("seed", range(6))
def test_any_start_comes_back(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    start = tuple(chance.choices(WORDS, k=chance.randint(1, 9)))
    system = Deployed(tmp_path, *start)
    own = Own()
    for wanted in wishes(chance):
        own = change(system, own, wanted)
        assert set(wanted.add) <= {word.replace("-", "_") for word in next_boot(system)}
    assert change(system, own, Edit()) == Own()
    assert system.options == " ".join(start)
