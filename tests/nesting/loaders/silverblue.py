# SPDX-License-Identifier: LGPL-2.1-or-later
"""Silverblue, and a system of bootc, as trees: two deployments' entries, and fakes of their tools.

Built, not captured: after ostree's src/libostree/ostree-bootconfig-parser.c and Silverblue 41's entries.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from nestd.host import bootloader
from nestd.nesting.loaders.probe import Loader
from nestd.nesting.own import Own, parsed, text
from nestd.nesting.steps import Run
from nestd.text.arguments import Edit
from tests.nesting.machines import Machine
from tests.support import loop
from tests.support.tree import CAPTURES, Tree

FAKE = Path(__file__).parents[2] / "support/fakestaged.py"
BOOT = "ostree=/ostree/boot.1/fedora/5a9c2bd3c1e8d0f9b0a6f0b7c1d2e3f45a9c2bd3c1e8d0f9b0a6f0b7c1d2e3f4"
START = ("rhgb", "quiet", "root=UUID=6d8d5e6f-5a53-4d5c-9f3b-0d6c8f2f3f2a", "rootflags=subvol=root", "rw")


def installed(top: Path, words: tuple[str, ...] = START) -> Machine:
    """The system with these arguments; the older deployment has START."""
    tree = Tree(top).amd().module("kvm_amd").write("/run/ostree-booted", "")
    tree.write("/boot/grub2/grub.cfg", (CAPTURES / "grub-fedora.cfg").read_text())
    for number, arguments in ((1, START), (2, words)):
        folder = "/ostree/fedora-5a9c2bd3c1e8d0f9b0a6f0b7c1d2e3f45a9c2bd3c1e8d0f9b0a6f0b7c1d2e3f4"
        tree.write(
            f"/boot/loader/entries/ostree-{number}.conf",
            f"title Fedora Linux 41.2024112{number}.0 (Silverblue) (ostree:{2 - number})\nversion {number}\n"
            f"options {' '.join(arguments)} {BOOT}/{2 - number}\n"
            f"linux {folder}/vmlinuz-6.11.8-300.fc41.x86_64\n"
            f"initrd {folder}/initramfs-6.11.8-300.fc41.x86_64.img\n"
            "aboot /ostree/deploy/fedora/deploy/x/usr/lib/ostree-boot/aboot.img\n",
        )
    return Machine.of(tree)


def program(machine: Machine, name: str) -> None:
    """Install the fake under that name."""
    shutil.copy(FAKE, machine.tools.folder / name)
    (machine.tools.folder / name).chmod(0o755)


def next_boot(machine: Machine) -> tuple[str, ...]:
    """The arguments of the next boot, less the deployment's."""
    found = bootloader.read(machine.tree.root)
    assert found is not None
    assert not found.doubt
    return tuple(word for word in found.command_line.split() if not word.startswith("ostree="))


def stagings(machine: Machine) -> int:
    """How often something was staged."""
    found = machine.tree.root.read("/.kernel/stagings")
    return len(found.splitlines()) if found else 0


def reboot(machine: Machine) -> None:
    """What is staged gets its entry."""
    program(machine, "finalize")
    assert loop.run(machine.host.commands.run("finalize")).code == 0


def change(machine: Machine, loader: Loader, own: Own, wanted: Edit) -> tuple[Own, tuple[Run, ...]]:
    """Have it so, twice; then nothing is left to be done. The Own goes through its file."""
    todo, after = loop.run(loader.steps(machine.host, own, wanted))
    once = 0
    for _ in range(2):
        for step in todo:
            assert isinstance(step, Run)
            done = loop.run(machine.host.commands.run(*step.argv))
            assert done.code == 0, done.err
        once = once or stagings(machine)
    assert stagings(machine) == once
    written = text(after)
    assert (parsed(written) if written else Own()) == after
    assert loop.run(loader.steps(machine.host, after, wanted)) == ((), after)
    return after, tuple(step for step in todo if isinstance(step, Run))
