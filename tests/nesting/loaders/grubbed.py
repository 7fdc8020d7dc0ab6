# SPDX-License-Identifier: LGPL-2.1-or-later
"""A machine that boots by GRUB, its grub.cfg made by update-grub."""

from __future__ import annotations

from pathlib import Path

import pytest

from nestd.nesting.loaders.grub import Grub
from tests.nesting.machines import Machine
from tests.support import fakeloaders
from tests.support.loop import run
from tests.support.tree import Tree

LOADER = Grub()
DEFAULTS = 'GRUB_DEFAULT=0\nGRUB_CMDLINE_LINUX_DEFAULT="quiet"\nGRUB_CMDLINE_LINUX=""\n'


def made(machine: Machine) -> Machine:
    """With grub.cfg as update-grub makes it."""
    assert run(machine.host.commands.run("update-grub")).code == 0
    return machine


@pytest.fixture(name="machine")
def grub_machine(tmp_path: Path) -> Machine:
    tree = Tree(tmp_path).amd().write("/etc/default/grub", DEFAULTS)
    tree.path("/etc/default/grub.d").mkdir()
    machine = Machine.of(tree)
    fakeloaders.grub(tree, machine.tools)
    return made(machine)
