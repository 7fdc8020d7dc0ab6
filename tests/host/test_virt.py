# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from pathlib import Path

import pytest

from nestd.errors import ToolFailed
from nestd.host.commands import Commands
from nestd.host.virt import virtualization
from tests.support import loop
from tests.support.tools import Tools
from tests.support.tree import Tree


def test_words(tmp_path: Path) -> None:
    tools = Tools(Tree(tmp_path))
    assert loop.run(virtualization(tools.commands)) == "none"
    tools.virtualization("kvm")
    assert loop.run(virtualization(tools.commands)) == "kvm"


def test_missing(tmp_path: Path) -> None:
    tools = Tools(Tree(tmp_path))
    tools.without("systemd-detect-virt")
    assert loop.run(virtualization(tools.commands)) == ""


def test_failing(tmp_path: Path) -> None:
    tools = Tools(Tree(tmp_path))
    tools.fail("systemd-detect-virt", code=1, words="cannot tell")
    with pytest.raises(ToolFailed, match="cannot tell"):
        loop.run(virtualization(tools.commands))


def test_real_one() -> None:
    word = loop.run(virtualization(Commands()))
    assert word == word.strip() and word
