# SPDX-License-Identifier: LGPL-2.1-or-later
"""What kernel-install may name this system's folders after."""

from __future__ import annotations

from pathlib import Path

import pytest

from nestd.host.entrytoken import tokens
from tests.support.tree import Tree

MACHINE = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_all_in_the_order_of_kernel_install(tree: Tree) -> None:
    tree.write("/etc/kernel/entry-token", "mine\nand not this\n").write("/etc/machine-id", f"{MACHINE}\n")
    tree.write("/etc/machine-info", "PRETTY_HOSTNAME=x\nKERNEL_INSTALL_MACHINE_ID=older\n")
    tree.write("/etc/os-release", 'NAME="Debian"\nIMAGE_ID=\'gold\'\nID="debian"\n')
    tree.write("/usr/lib/os-release", "ID=debian\n")
    assert tokens(tree.root) == ("mine", MACHINE, "older", "gold", "debian", "Default")


def test_a_bare_system(tree: Tree) -> None:
    assert tokens(tree.root) == ("Default",)


@pytest.mark.parametrize("text", ["", "\n", "..", ".", "a/b", "../..", "a b", "a\0b"])
def test_what_is_no_name_of_a_file(tree: Tree, text: str) -> None:
    tree.write("/etc/kernel/entry-token", text)
    assert tokens(tree.root) == ("Default",)
