# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from pathlib import Path

import pytest

from nestd.errors import Malformed, ToolFailed, ToolMissing
from nestd.model import DriverState
from tests.support import loop
from tests.support.tools import Tools
from tests.support.tree import RELEASE, Tree


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path).amd()


@pytest.fixture
def tools(tree: Tree) -> Tools:
    return Tools(tree)


def test_state_loaded_unloaded_missing(tree: Tree, tools: Tools) -> None:
    assert tools.kmod.state("kvm_amd") is DriverState.UNLOADED
    tree.module("kvm_amd")
    assert tools.kmod.state("kvm_amd") is tools.kmod.state("kvm-amd") is DriverState.LOADED
    assert tools.kmod.state("kvm") is DriverState.LOADED
    assert tools.kmod.state("kvm_intel") is DriverState.UNLOADED
    assert tools.kmod.state("kvm_hv") is DriverState.MISSING


@pytest.mark.parametrize("word", ["coming", "going", "", "livex"])
def test_only_live_is_loaded(tree: Tree, tools: Tools, word: str) -> None:
    tree.module("kvm_amd", initstate=word)
    assert tools.kmod.state("kvm_amd") is DriverState.UNLOADED
    assert tools.kmod.loaded() == ("kvm",)


def test_builtin(tree: Tree, tools: Tools) -> None:
    tree.builtin("kvm_amd", nested="1")
    assert tools.kmod.state("kvm_amd") is DriverState.BUILTIN
    assert tools.kmod.refcnt("kvm_amd") == 0
    # One without parameters has no folder.
    tree.gone("/sys/module/kvm_amd")
    assert tools.kmod.state("kvm_amd") is DriverState.BUILTIN


def test_a_folder_without_initstate_may_be_one_that_is_just_coming(tree: Tree, tools: Tools) -> None:
    tree.write("/sys/module/kvm_amd/uevent", "")
    assert tools.kmod.state("kvm_amd") is DriverState.UNLOADED


def test_builtin_where_no_index_knows_it(tree: Tree, tools: Tools) -> None:
    tree.write("/sys/module/kvm_pvm/parameters/force", "N\n")
    assert tools.kmod.state("kvm_pvm") is DriverState.BUILTIN


def test_kernel_without_modules(tmp_path: Path) -> None:
    tools = Tools(Tree(tmp_path).pvm())
    assert tools.kmod.state("kvm") is tools.kmod.state("kvm_pvm") is DriverState.BUILTIN
    assert tools.kmod.state("kvm_amd") is DriverState.MISSING
    assert tools.kmod.parameters("kvm_pvm")["force"] == "N"
    assert tools.kmod.loaded() == ()
    assert not tools.kmod.loading_disabled()


def test_modules_of_this_kernel_were_removed(tree: Tree, tools: Tools) -> None:
    tree.gone(f"/lib/modules/{RELEASE}")
    assert tools.kmod.state("kvm_amd") is DriverState.MISSING


@pytest.mark.parametrize("name", ["", "../kvm", "kvm/parameters", "kvm amd", "kvm\n", "kvm\0", "--help"])
def test_odd_names_are_refused(tools: Tools, name: str) -> None:
    if name == "--help":
        # A name to the kernel, and never an option to a tool.
        with pytest.raises(ToolFailed):
            loop.run(tools.kmod.load(name, {}))
        assert tools.calls() == [["modprobe", "--", "__help"]]
        return
    for ask in (tools.kmod.state, tools.kmod.refcnt, tools.kmod.parameters):
        with pytest.raises(ValueError, match="not a module's name"):
            ask(name)


def test_refcnt(tree: Tree, tools: Tools) -> None:
    assert tools.kmod.refcnt("kvm_amd") == 0
    tree.module("kvm_amd", refcnt=3)
    assert tools.kmod.refcnt("kvm-amd") == 3
    assert tools.kmod.refcnt("kvm") == 1
    tree.write("/sys/module/kvm_amd/refcnt", "-1\n")
    assert tools.kmod.refcnt("kvm_amd") == 0
    tree.write("/sys/module/kvm_amd/refcnt", "")
    with pytest.raises(Malformed, match="refcnt"):
        tools.kmod.refcnt("kvm_amd")


def test_parameters(tree: Tree, tools: Tools) -> None:
    assert tools.kmod.parameters("kvm_amd") == {}
    tree.module("kvm_amd", nested="0", odd="a b ")
    # Where the kernel refuses to read, a folder does too.
    tree.path("/sys/module/kvm_amd/parameters/write_only").mkdir()
    assert tools.kmod.parameters("kvm-amd") == {"nested": "0", "npt": "Y", "avic": "N", "odd": "a b"}


def test_loading_disabled(tree: Tree, tools: Tools) -> None:
    assert not tools.kmod.loading_disabled()
    tree.modules_disabled()
    assert tools.kmod.loading_disabled()


def test_load_and_unload(tree: Tree, tools: Tools) -> None:
    loop.run(tools.kmod.load("kvm-amd", {"nested": "0", "avic": "1"}))
    assert tools.calls() == [["modprobe", "--", "kvm_amd", "nested=0", "avic=1"]]
    assert tools.kmod.parameters("kvm_amd") == {"nested": "0", "npt": "Y", "avic": "Y"}
    tree.write("/sys/module/kvm/parameters/ignore_msrs", "Y\n")
    loop.run(tools.kmod.unload("kvm-amd"))
    assert tools.calls()[1:] == [["rmmod", "--", "kvm_amd"]]
    assert tools.kmod.state("kvm_amd") is DriverState.UNLOADED
    assert tools.kmod.parameters("kvm")["ignore_msrs"] == "Y"


def test_unload_in_use(tree: Tree, tools: Tools) -> None:
    tree.module("kvm_amd", refcnt=2)
    with pytest.raises(ToolFailed) as caught:
        loop.run(tools.kmod.unload("kvm_amd"))
    assert caught.value.code == 1
    assert tools.kmod.state("kvm_amd") is DriverState.LOADED
    assert tools.kmod.refcnt("kvm_amd") == 2


def test_load_on_the_wrong_cpu_leaves_kvm_loaded(tools: Tools) -> None:
    with pytest.raises(ToolFailed, match="Operation not supported"):
        loop.run(tools.kmod.load("kvm_intel", {}))
    assert tools.kmod.loaded() == ("kvm",)
    assert tools.kmod.refcnt("kvm") == 0


def test_tools_that_are_missing_or_fail(tools: Tools) -> None:
    tools.fail("modprobe", "kvm_amd", code=7, words="of all things")
    with pytest.raises(ToolFailed, match="of all things") as caught:
        loop.run(tools.kmod.load("kvm_amd", {}))
    assert caught.value.code == 7
    tools.without("modprobe")
    tools.without("rmmod")
    with pytest.raises(ToolMissing, match="modprobe"):
        loop.run(tools.kmod.load("kvm_amd", {}))
    with pytest.raises(ToolMissing, match="rmmod"):
        loop.run(tools.kmod.unload("kvm_amd"))
