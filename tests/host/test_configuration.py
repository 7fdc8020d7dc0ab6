# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from pathlib import Path

import pytest

from nestd.host.configuration import FILE, FOLDER, enforced
from nestd.host.root import Root
from tests.support.tree import Tree

ON, OFF = "[Nesting]\nEnforce=when-idle\n", "[Nesting]\nEnforce=no\n"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_nothing_is_there(tree: Tree) -> None:
    assert enforced(tree.root) is False


def test_a_later_file_wins(tree: Tree) -> None:
    tree.write(FILE, ON)
    assert enforced(tree.root) is True
    tree.write(f"{FOLDER}/10-off.conf", OFF)
    assert enforced(tree.root) is False
    tree.write(f"{FOLDER}/20-on.conf", ON).write(f"{FOLDER}/30-off.conf.bak", OFF)
    assert enforced(tree.root) is True
    tree.write(f"{FOLDER}/90-nothing.conf", "# nothing\n")
    assert enforced(tree.root) is True


def test_what_is_wrong_is_named_and_does_not_count(tree: Tree, capfd: pytest.CaptureFixture[str]) -> None:
    tree.write(FILE, ON).write(f"{FOLDER}/50-typo.conf", "\n[Nesting]\nEnforce=on\n[Other]\n\udcff=\x1b\n")
    assert enforced(tree.root) is True
    said = capfd.readouterr().err
    assert f"{FOLDER}/50-typo.conf:3: Enforce= takes no or when-idle, not 'on'." in said
    assert f"{FOLDER}/50-typo.conf:4: there is no section [Other]" in said


def test_what_cannot_be_read_does_not_count(tree: Tree, capfd: pytest.CaptureFixture[str]) -> None:
    tree.path(FILE).mkdir(parents=True)
    assert enforced(Root(str(tree.top))) is False
    assert "cannot be read" in capfd.readouterr().err
