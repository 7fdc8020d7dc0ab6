# SPDX-License-Identifier: LGPL-2.1-or-later
"""The back end for Fedora and RHEL, with a fake grubby that edits as the real one does."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from nestd import errors
from nestd.host import bootloader
from nestd.nesting.loaders.grubby import Grubby
from nestd.nesting.loaders.probe import Fit, Probe
from nestd.nesting.own import Own
from nestd.nesting.steps import Run, Step, WriteFile
from nestd.text.arguments import Edit
from tests.nesting.loaders import rpm
from tests.nesting.machines import Machine
from tests.support import loop

ON = Edit(("kvm_amd.nested=1",))
OFF = Edit(("kvm_amd.nested=0",), ("kvm_amd.nested=1",))
CMDLINE, DEFAULTS = "/etc/kernel/cmdline", "/etc/default/grub"


def steps(machine: Machine, own: Own, wanted: Edit) -> tuple[tuple[Step, ...], Own]:
    return loop.run(Grubby().steps(machine.host, own, wanted))


def probe(machine: Machine) -> Probe:
    return loop.run(Grubby().probe(machine.host, bootloader.read(machine.tree.root)))


def carry_out(machine: Machine, todo: tuple[Step, ...]) -> None:
    for step in todo:
        if isinstance(step, Run):
            before = rpm.files(machine)
            done = loop.run(machine.host.commands.run(*step.argv))
            assert done.code == 0, done.err
            changed = {f"/{path}" for path, text in rpm.files(machine).items() if before.get(path) != text}
            assert changed <= set(step.keeps)
            continue
        assert isinstance(step, WriteFile)
        assert machine.tree.root.read(step.path) in {step.before, step.text}
        if step.text is None:
            machine.tree.path(step.path).unlink(missing_ok=True)
        else:
            machine.tree.write(step.path, step.text)


def change(machine: Machine, own: Own, wanted: Edit) -> Own:
    """Have it so; once more, nothing is to be done."""
    todo, after = steps(machine, own, wanted)
    carry_out(machine, todo)
    once = rpm.files(machine)
    carry_out(machine, todo)  # as after a crash
    assert rpm.files(machine) == once
    assert steps(machine, after, wanted) == ((), after)
    return after


def next_boot(machine: Machine) -> str:
    found = bootloader.read(machine.tree.root)
    assert found is not None
    assert not found.doubt
    return found.command_line


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return rpm.installed(tmp_path, rpm.FEDORA_40)


@pytest.mark.parametrize("release", rpm.RELEASES, ids=["fedora-40", "fedora-41", "rhel-9", "without-boot"])
def test_on_off_and_back(tmp_path: Path, release: rpm.Release) -> None:
    machine = rpm.installed(tmp_path, release)
    assert probe(machine).fit is Fit.FITS
    before = rpm.files(machine)
    own = change(machine, Own(), ON)
    assert next_boot(machine).endswith(" kvm_amd.nested=1")
    assert (own.loader, own.added, own.removed) == ("grubby", ("kvm_amd.nested=1",), ())
    texts = [text for path, text in rpm.files(machine).items() if "loader/entries" in path]
    assert all(" kvm_amd.nested=1\n" in text for text in texts)
    assert len(texts) == 3
    assert ('kvm_amd.nested=1"' in machine.tree.read(DEFAULTS)) is ("$" not in release.arguments)
    own = change(machine, own, Edit(("kvm_amd.nested=0",)))
    assert next_boot(machine).endswith(" kvm_amd.nested=0")
    assert "nested=1" not in "".join(rpm.files(machine).values())
    assert change(machine, own, Edit()) == Own()
    assert rpm.files(machine) == before


def test_the_steps(machine: Machine) -> None:
    todo, _ = steps(machine, Own(), ON)
    newest = rpm.FEDORA_40.kernels[0]
    assert (
        Run(
            ("grubby", f"--update-kernel=/boot/vmlinuz-{newest}", "--args=kvm_amd.nested=1"),
            keeps=(rpm.path(newest),),
        )
        in todo
    )
    [made] = [step for step in todo if isinstance(step, WriteFile) and step.path == CMDLINE]
    assert (made.text, made.before) == (f"{rpm.FEDORA_40.arguments} kvm_amd.nested=1\n", None)


def test_a_kernel_with_another_value_keeps_it(machine: Machine) -> None:
    older = rpm.FEDORA_40.kernels[1]
    text = rpm.entry(rpm.FEDORA_40, older, "root=LABEL=x kvm-amd.nested=0 quiet")
    machine.tree.write(rpm.path(older), text)
    own = change(machine, Own(), ON)
    assert machine.tree.read(rpm.path(older)) == text
    assert "nested=1" in next_boot(machine)
    change(machine, own, Edit())
    assert machine.tree.read(rpm.path(older)) == text


def test_kernels_that_had_it_keep_it(machine: Machine) -> None:
    older = rpm.FEDORA_40.kernels[1]
    text = rpm.entry(rpm.FEDORA_40, older, "root=LABEL=x kvm_amd.nested=1 quiet")
    machine.tree.write(rpm.path(older), text).write(CMDLINE, "root=LABEL=x  kvm_amd.nested=1 quiet\n")
    before = rpm.files(machine)
    own = change(machine, Own(), ON)
    change(machine, own, Edit())
    assert rpm.files(machine) == before


def test_somebody_elses_comes_back_to_its_place(machine: Machine) -> None:
    newest = rpm.FEDORA_40.kernels[0]
    machine.tree.write(rpm.path(newest), rpm.entry(rpm.FEDORA_40, newest, "a=b  kvm-amd.nested=1 quiet  x"))
    before = rpm.files(machine)
    own = change(machine, Own(), OFF)
    assert next_boot(machine) == "a=b quiet x kvm_amd.nested=0"
    assert own.removed == ("kvm-amd.nested=1",)
    change(machine, own, Edit())
    assert rpm.files(machine) == before


def test_what_somebody_did_meanwhile_stays(machine: Machine) -> None:
    newest = rpm.FEDORA_40.kernels[0]
    machine.tree.write(rpm.path(newest), rpm.entry(rpm.FEDORA_40, newest, "a=b kvm_amd.nested=1 quiet"))
    own = change(machine, Own(), OFF)
    done = loop.run(machine.host.commands.run("grubby", "--update-kernel=ALL", "--args=debug"))
    assert done.code == 0
    change(machine, own, Edit())
    assert next_boot(machine) == "a=b quiet debug kvm_amd.nested=1"
    left = rpm.files(machine)
    # /etc/kernel/cmdline, which nestd had made of that entry, has become somebody's own
    assert [path for path, text in left.items() if "nested" in text] == [
        rpm.path(newest).lstrip("/"),
        CMDLINE.lstrip("/"),
    ]
    assert all("debug" in text for path, text in left.items() if "entries" in path or "cmdline" in path)


def test_a_kernel_that_came_since(machine: Machine) -> None:
    """Its entry is made from /etc/kernel/cmdline."""
    own = change(machine, Own(), ON)
    new = "6.12.9-200.fc40.x86_64"
    text = rpm.entry(rpm.FEDORA_40, new, machine.tree.read(CMDLINE).strip())
    machine.tree.write(rpm.path(new), text)
    assert steps(machine, own, ON)[0] == ()
    change(machine, own, Edit())
    assert machine.tree.read(rpm.path(new)) == rpm.entry(rpm.FEDORA_40, new)


def test_odd_defaults_are_left_alone(machine: Machine) -> None:
    text = machine.tree.read(DEFAULTS) + 'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX more"\n'
    machine.tree.write(DEFAULTS, text.replace('="rootflags', "='rootflags").replace('quiet"', "quiet'"))
    before = machine.tree.read(DEFAULTS)
    change(machine, Own(), ON)
    assert machine.tree.read(DEFAULTS) == before


@pytest.mark.parametrize("line", ["a=b&c", "a=\\040", "a\noptions b"])
def test_what_grubby_would_garble(machine: Machine, line: str) -> None:
    newest = rpm.FEDORA_40.kernels[0]
    machine.tree.write(rpm.path(newest), rpm.entry(rpm.FEDORA_40, newest, line))
    with pytest.raises(errors.BootloaderFailed, match=f"{rpm.path(newest)} has .* grubby would garble"):
        steps(machine, Own(), ON)


def test_elsewhere(machine: Machine) -> None:
    source = f"{rpm.path(rpm.FEDORA_40.kernels[0])}:5"
    following = bootloader.read(machine.tree.root)
    assert following is not None
    assert following.source == source
    for seen, fit, why in [
        (following._replace(source="/boot/grub2/grub.cfg:70"), Fit.NOT, "/boot/grub2/grub.cfg:70"),
        (following._replace(loader="systemd-boot"), Fit.NOT, "systemd-boot boots"),
        (following._replace(doubt="why not"), Fit.UNSURE, "why not"),
        (None, Fit.NOT, "no boot loader"),
    ]:
        found = loop.run(Grubby().probe(machine.host, seen))
        assert found.fit is fit
        assert why in found.why
    older = rpm.FEDORA_40.kernels[1]
    machine.tree.write(rpm.path(older), rpm.entry(rpm.FEDORA_40, older, "$kernelopts $tuned_params"))
    assert "$kernelopts" in probe(machine).why
    machine.tools.without("grubby")
    assert "not installed" in probe(machine).why


def script(machine: Machine, own: Own) -> None:
    """Run the lines of /var/lib/nestd/undo on the tree."""
    top = machine.tree.top
    lines = Grubby().script(own)
    for place in ("/boot/loader", "/etc/"):
        lines = lines.replace(place, f"{top}{place}")
    path = f"{machine.tools.folder}:/usr/bin:/bin"
    subprocess.run(["sh", "-eu", "-c", lines], env={"PATH": path}, check=True)


@pytest.mark.parametrize("cmdline", [None, "root=x  kvm_amd.nested=1 quiet\n"])
def test_the_script(machine: Machine, cmdline: str | None) -> None:
    newest = rpm.FEDORA_40.kernels[0]
    machine.tree.write(rpm.path(newest), rpm.entry(rpm.FEDORA_40, newest, "a='b'  kvm_amd.nested=1 quiet"))
    if cmdline:
        machine.tree.write(CMDLINE, cmdline)
    before = rpm.files(machine)
    own = change(machine, Own(), OFF)
    assert rpm.files(machine) != before
    for _ in range(2):
        script(machine, own)
        assert rpm.files(machine) == before
    assert Grubby().script(Own()) == ""


def test_the_script_where_others_were(machine: Machine) -> None:
    newest, older = rpm.FEDORA_40.kernels
    machine.tree.write(rpm.path(newest), rpm.entry(rpm.FEDORA_40, newest, "a='b' kvm_amd.nested=1 quiet"))
    machine.tree.write(DEFAULTS, rpm.defaults("kvm_amd.nested=1 quiet"))
    own = change(machine, Own(), OFF)
    new = "6.12.9-200.fc40.x86_64"
    machine.tree.write(rpm.path(new), rpm.entry(rpm.FEDORA_40, new, "new kvm_amd.nested=0"))
    machine.tree.write(CMDLINE, machine.tree.read(CMDLINE).replace("quiet", "debug"))
    machine.tree.write(DEFAULTS, machine.tree.read(DEFAULTS).replace("quiet", "debug"))
    machine.tree.write(rpm.path(newest), machine.tree.read(rpm.path(newest)).replace("quiet", "debug"))
    for _ in range(2):
        script(machine, own)
        assert "options a='b' debug kvm_amd.nested=1\n" in machine.tree.read(rpm.path(newest))
        assert machine.tree.read(rpm.path(older)) == rpm.entry(rpm.FEDORA_40, older)
        assert "options new\n" in machine.tree.read(rpm.path(new))
        assert 'GRUB_CMDLINE_LINUX="debug kvm_amd.nested=1"' in machine.tree.read(DEFAULTS)
        assert machine.tree.read(CMDLINE) == "a='b' debug kvm_amd.nested=1\n"


def test_the_script_where_no_entry_is_left(machine: Machine) -> None:
    """What it takes back besides, an initramfs, comes behind these lines."""
    own = change(machine, Own(), OFF)
    shutil.rmtree(machine.tree.path(rpm.ENTRIES))
    script(machine, own)


WORDS = (
    "root=x",
    "ro",
    "quiet",
    "quiet",
    "kvm_amd.nested=0",
    "kvm_amd.nested=1",
    "kvm-amd.nested=1",
    "a=b=c",
    "kvm.x",
)


@pytest.mark.parametrize("seed", range(8))
def test_any_start_comes_back(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    machine = rpm.installed(tmp_path, chance.choice(rpm.RELEASES))
    blanks = (" ", "  ", " ", "\t")
    for path in [f"{rpm.ENTRIES}/{name}" for name in machine.tree.root.names(rpm.ENTRIES)]:
        line = chance.choice(blanks).join(chance.choices(WORDS, k=chance.randint(1, 7)))
        text = machine.tree.read(path)
        start = text.index("options ") + len("options ")
        machine.tree.write(path, text[:start] + line + text[text.index("\n", start) :])
    if chance.random() < 0.5:
        machine.tree.write(
            CMDLINE, chance.choice(blanks).join(chance.choices(WORDS, k=3)) + chance.choice(("", "\n"))
        )
    before = rpm.files(machine)
    own = Own()
    for _ in range(chance.randint(1, 3)):
        value = chance.randint(0, 1)
        others = tuple(f"{name}.nested={1 - value}" for name in ("kvm_amd",) if chance.random() < 0.6)
        own = change(machine, own, Edit((f"kvm_amd.nested={value}",), others))
    assert change(machine, own, Edit()) == Own()
    assert rpm.files(machine) == before
