# SPDX-License-Identifier: LGPL-2.1-or-later
"""A machine that boots by systemd-boot, its kernels installed by kernel-install."""

from __future__ import annotations

from pathlib import Path

import pytest

from nestd.nesting.loaders.kernelinstall import KernelInstall
from tests.nesting.machines import Machine
from tests.support import fakeloaders
from tests.support.fakeloaders import MACHINE_ID, NEW
from tests.support.loop import run
from tests.support.tree import Tree

LOADER = KernelInstall()
OLD = "6.1.0-42-amd64"
FOLDER = "/efi/loader/entries"
RUNNING = "BOOT_IMAGE=/vmlinuz initrd=\\x\\initrd root=/dev/vda1 ro quiet\n"


def install(machine: Machine, release: str) -> None:
    """A kernel's package: kernel-install as /etc/kernel/postinst.d/zz-systemd-boot calls it."""
    top = machine.tree.top
    machine.tree.write(f"/boot/vmlinuz-{release}", release).write(f"/boot/initrd.img-{release}", release * 2)
    machine.tree.write(f"/lib/modules/{release}/modules.dep", "")
    images = (str(top / f"boot/vmlinuz-{release}"), str(top / f"boot/initrd.img-{release}"))
    done = run(machine.host.commands.run("kernel-install", "add", release, *images))
    assert done.code == 0, done


def entry(release: str, token: str = MACHINE_ID) -> str:
    return f"{FOLDER}/{token}-{release}.conf"


def options(machine: Machine, path: str) -> str:
    rows = machine.tree.read(path).split("\n")
    return next(row.removeprefix("options    ") for row in rows if row.startswith("options"))


@pytest.fixture(name="machine")
def installed_machine(tmp_path: Path) -> Machine:
    """Two kernels, installed where /etc/kernel/cmdline is missing."""
    machine = Machine.of(Tree(tmp_path).amd().write("/proc/cmdline", RUNNING))
    fakeloaders.kernel_install(machine.tree, machine.tools)
    for release in OLD, NEW:
        install(machine, release)
    return machine
