# SPDX-License-Identifier: LGPL-2.1-or-later
"""The fakes do what the emulated machine's real modprobe, rmmod and kernel were seen to do."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from nestd.errors import ToolFailed
from nestd.host.commands import Completed
from nestd.model import Extension, KvmAnswer
from tests.support import loop
from tests.support.fakekvm import FakeKvm
from tests.support.tools import Tools
from tests.support.tree import Tree


def modprobe(tools: Tools, *words: str) -> Completed:
    return loop.run(tools.commands.run("modprobe", *words))


def nested(tree: Tree, module: str = "kvm_amd") -> str:
    return tree.read(f"/sys/module/{module}/parameters/nested").strip()


@pytest.mark.parametrize(
    ("files", "cmdline", "words", "wanted"),
    [
        ({}, "", (), "1"),
        ({"a.conf": "options kvm_amd nested=0\n"}, "", (), "0"),
        ({"a.conf": "options kvm-amd \\\n nested=0\n"}, "", (), "0"),
        ({"a.conf": "options kvm_amd nested=0\n", "b.conf": "options kvm-amd nested=1\n"}, "", (), "1"),
        (
            {"zz-nestd.conf": "options kvm_amd nested=0\n", "99.conf": "options kvm_amd nested=1\n"},
            "",
            (),
            "0",
        ),
        ({"a.conf": "options kvm_amd nested=1\n"}, "ro kvm_amd.nested=0", (), "0"),
        ({}, "kvm-amd.nested=0", ("nested=1",), "1"),
        ({"a.conf": "# options kvm_amd nested=0\noptions kvm_intel nested=0\n"}, "", (), "1"),
        ({"a.conf.bak": "options kvm_amd nested=0\n"}, "", (), "1"),
        ({"a.conf": "blacklist kvm_amd\n"}, "", ("nested=2",), "2"),
        ({}, "", ("nested=0", "unknown=1"), "0"),
    ],
)
def test_who_wins(
    tmp_path: Path, files: dict[str, str], cmdline: str, words: tuple[str, ...], wanted: str
) -> None:
    tree = Tree(tmp_path).amd().cmdline(cmdline)
    for name, text in files.items():
        tree.dropin(name, text)
    assert modprobe(Tools(tree), "--", "kvm_amd", *words) == Completed(0, "", "")
    assert nested(tree) == wanted


def test_one_folder_hides_another(tmp_path: Path) -> None:
    tree = Tree(tmp_path).amd().dropin("a.conf", "options kvm_amd nested=0\n", "/lib/modprobe.d")
    tree.dropin("a.conf", "")
    modprobe(Tools(tree), "kvm_amd")
    assert nested(tree) == "1"


def test_values(tmp_path: Path) -> None:
    amd = Tree(tmp_path / "amd").amd()
    refused = modprobe(Tools(amd), "kvm_amd", "nested=Y")
    assert refused == Completed(1, "", "modprobe: ERROR: could not insert 'kvm_amd': Invalid argument\n")
    assert not amd.root.exists("/sys/module/kvm_amd")
    intel = Tree(tmp_path / "intel").intel()
    assert modprobe(Tools(intel), "kvm_intel", "nested=0").code == 0
    assert nested(intel, "kvm_intel") == "N"


def test_no_effect_on_what_is_there(tmp_path: Path) -> None:
    loaded = Tree(tmp_path / "loaded").amd().module("kvm_amd", nested="1")
    assert modprobe(Tools(loaded), "kvm_amd", "nested=0") == Completed(0, "", "")
    builtin = Tree(tmp_path / "builtin").amd().builtin("kvm_amd", nested="1")
    assert modprobe(Tools(builtin), "kvm_amd", "nested=0") == Completed(0, "", "")
    assert nested(loaded) == nested(builtin) == "1"
    assert loop.run(Tools(builtin).commands.run("rmmod", "kvm_amd")).code == 1


def test_refusals(tmp_path: Path) -> None:
    tree = Tree(tmp_path).amd()
    tools = Tools(tree)
    assert "not found" in modprobe(tools, "kvm_hv").err
    tree.dropin("a.conf", "install kvm_amd /bin/false\n")
    assert modprobe(tools, "kvm_amd").code == 1
    tree.dropin("a.conf", "").modules_disabled()
    assert "Operation not permitted" in modprobe(tools, "kvm_amd").err
    tree.module("kvm_amd")
    for module in ("kvm_amd", "kvm", "kvm_intel"):
        assert loop.run(tools.commands.run("rmmod", module)).code == 1
    assert tree.root.exists("/sys/module/kvm_amd/initstate")


def test_injected_failures_are_used_up(tmp_path: Path) -> None:
    tree = Tree(tmp_path).amd()
    tools = Tools(tree)
    tools.fail("modprobe", "kvm_amd", code=1, words="no")
    tools.fail("modprobe", idle=True)
    tools.fail("rmmod", "kvm_amd", hang=60)
    with pytest.raises(ToolFailed, match="no"):
        loop.run(tools.kmod.load("kvm_amd", {}))
    loop.run(tools.kmod.load("kvm_amd", {}))
    assert not tree.root.exists("/sys/module/kvm_amd")
    loop.run(tools.kmod.load("kvm_amd", {}))
    assert tree.root.exists("/sys/module/kvm_amd")
    with pytest.raises(ToolFailed, match="stopped"):
        loop.run(tools.commands.run("rmmod", "kvm_amd", limit=5.0))
    loop.run(tools.kmod.unload("kvm_amd"))
    assert [call[0] for call in tools.calls()] == ["modprobe"] * 3 + ["rmmod"] * 2


def test_journal(tmp_path: Path) -> None:
    tools = Tools(Tree(tmp_path))
    tools.kernel_log("kernel: x86/cpu: VMX (outside TXT) disabled by BIOS\n")
    assert "disabled by BIOS" in loop.run(tools.commands.run("journalctl", "-k")).out


def test_kvm_offers_what_the_parameters_say(tmp_path: Path) -> None:
    tree = Tree(tmp_path).amd()
    kvm = FakeKvm(tree)
    assert kvm.ask() == KvmAnswer(-1, errno.ENOENT, frozenset())
    tree.module("kvm_amd", nested="1")
    assert kvm.ask() == KvmAnswer(12, 0, frozenset({Extension.SVM}))
    tree.write("/sys/module/kvm_amd/parameters/nested", "0\n")
    assert kvm.ask() == KvmAnswer(12, 0, frozenset())
    # Built in beside it, the other vendor's driver says Y and gives nothing.
    tree.builtin("kvm_intel", nested="Y")
    assert kvm.ask() == KvmAnswer(12, 0, frozenset())
    kvm.refuse(errno.EACCES)
    assert kvm.ask() == KvmAnswer(-1, errno.EACCES, frozenset())
    assert FakeKvm(Tree(tmp_path / "pvm").pvm()).ask() == KvmAnswer(12, 0, frozenset())
