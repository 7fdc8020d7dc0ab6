# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which of the back ends is taken on Fedora, RHEL, Silverblue and images of bootc."""

from __future__ import annotations

from pathlib import Path

import pytest

from nestd import errors
from nestd.host import bootloader
from nestd.nesting.loaders import choose
from nestd.text.arguments import Edit
from tests.nesting.loaders import rpm, silverblue
from tests.nesting.machines import Machine
from tests.support import loop

ON = Edit(("kvm_amd.nested=1",))


def chosen(machine: Machine, name: str = "") -> str:
    following = bootloader.read(machine.tree.root)
    found = loop.run(choose.probed(machine.host, following))
    return choose.choose(machine.host, following, found, name, ON).name


@pytest.mark.parametrize("release", rpm.RELEASES)
def test_fedora_and_rhel(tmp_path: Path, release: rpm.Release) -> None:
    assert chosen(rpm.installed(tmp_path, release)) == "grubby"


@pytest.mark.parametrize(
    ("programs", "name"),
    [
        (("rpm-ostree", "bootc", "ostree", "grubby"), "rpm-ostree"),
        (("bootc", "ostree", "grubby"), "bootc"),
        (("bootc",), "bootc"),
        (("ostree", "grubby"), "ostree"),
    ],
)
def test_ostree_and_its_family(tmp_path: Path, programs: tuple[str, ...], name: str) -> None:
    machine = silverblue.installed(tmp_path)
    for program in programs:
        silverblue.program(machine, program)
    assert chosen(machine) == name


def test_an_older_bootc(tmp_path: Path) -> None:
    machine = silverblue.installed(tmp_path)
    for program in ("bootc", "ostree"):
        silverblue.program(machine, program)
    machine.tree.write("/.kernel/old-bootc", "")
    with pytest.raises(errors.BootloaderUnknown, match=r"/usr/lib/bootc/kargs\.d/10-nestd\.toml"):
        chosen(machine)
    assert chosen(machine, "ostree") == "ostree"
