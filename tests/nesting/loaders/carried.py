# SPDX-License-Identifier: LGPL-2.1-or-later
"""A back end's steps carried out on a tree, and its script; and what the tree then says."""

from __future__ import annotations

import subprocess

from nestd.host import bootloader, files
from nestd.nesting.loaders.probe import Loader, Probe
from nestd.nesting.own import Own, parsed, text
from nestd.nesting.steps import Run, Step, WriteFile
from nestd.text.arguments import Edit
from tests.nesting.machines import Machine
from tests.support.loop import run

ON, OFF = "kvm_amd.nested=1", "kvm_amd.nested=0"
NOTHING = Edit()


def probe(machine: Machine, loader: Loader) -> Probe:
    return run(loader.probe(machine.host, bootloader.read(machine.host.root)))


def steps(machine: Machine, loader: Loader, own: Own, wanted: Edit) -> tuple[tuple[Step, ...], Own]:
    """The steps; the Own goes through its file, as it does between two starts of nestd."""
    made, after = run(loader.steps(machine.host, own, wanted))
    written = text(after)
    return made, parsed(written) if written else Own()


def carry_out(machine: Machine, made: tuple[Step, ...]) -> None:
    """Do the steps; each must find what it says it finds, and keep what it changes."""
    for step in made:
        match step:
            case WriteFile(path, new, before):
                assert machine.host.root.read(path) == before
                if new is None:
                    files.remove(machine.host.root, path)
                else:
                    files.replace(machine.host.root, path, new, make_folder=True)
            case Run(argv, keeps):
                old = state(machine)
                done = run(machine.host.commands.run(*argv))
                assert done.code == 0, done
                now = state(machine)
                assert {path for path in {*old, *now} if old.get(path) != now.get(path)} <= set(keeps)
            case _:
                raise AssertionError(step)


def move(machine: Machine, loader: Loader, own: Own, wanted: Edit) -> Own:
    """Do what is wanted; doing it once more must be nothing."""
    made, after = steps(machine, loader, own, wanted)
    carry_out(machine, made)
    assert steps(machine, loader, after, wanted) == ((), after)
    # a plan that is gone on with after a crash
    once = state(machine)
    for step in made:
        if isinstance(step, Run):
            assert run(machine.host.commands.run(*step.argv)).code == 0
    assert state(machine) == once
    return after


def run_script(machine: Machine, loader: Loader, own: Own) -> None:
    """What is in /var/lib/nestd/undo, run twice, the tree being its root, with the tree's programs alone."""
    top, folder = str(machine.tree.top), machine.tools.folder
    lines = f"set -e\n{loader.script(own)}"
    for place in ("/etc/", "/efi/", "/boot/"):
        lines = lines.replace(f"/boot{place}", f"/boot\0{place[1:]}").replace(place, top + place)
    lines = lines.replace("\0", "/")
    for _ in range(2):
        done = subprocess.run(
            [str(folder / "sh"), "-c", lines], env={"PATH": str(folder)}, capture_output=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, b""), (done, lines)


def state(machine: Machine) -> dict[str, bytes]:
    """Every file that a boot loader reads, byte for byte."""
    top = machine.tree.top
    return {
        "/" + str(path.relative_to(top)): path.read_bytes()
        for folder in ("etc", "boot", "efi")
        for path in sorted((top / folder).rglob("*"))
        if path.is_file()
    }


def command_line(machine: Machine) -> str:
    """What the next kernel is given."""
    following = bootloader.read(machine.host.root)
    assert following is not None and not following.doubt, following
    return following.command_line
