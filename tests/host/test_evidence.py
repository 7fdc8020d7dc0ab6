# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where it is told that the firmware, or another hypervisor, has the extension: log, registers, modules."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from nestd.host import kernellog, msr
from nestd.host.commands import Commands
from nestd.host.others import Other, others
from nestd.host.root import Root
from tests.support.loop import run
from tests.support.tools import Tools
from tests.support.tree import Tree

LOG = "Linux version 6.1\nx86/cpu: VMX (outside TXT) disabled by BIOS\nkvm: x\n"
WANTED = r"VMX \(outside TXT\)|kvm: x"


def registers(tree: Tree, **values: int) -> Tree:
    """/dev/cpu/0/msr with those values; a file with holes reads as the device does."""
    path = tree.write("/dev/cpu/0/msr", "").path("/dev/cpu/0/msr")
    with path.open("r+b") as file:
        for number, value in values.items():
            file.seek(int(number.removeprefix("x"), 16))
            file.write(value.to_bytes(8, "little"))
    return tree


def lines(tree: Tree, tools: Tools) -> tuple[str, ...]:
    return run(kernellog.lines(tree.root, tools.commands, WANTED))


def test_the_journal_is_asked_for_this_boot(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tools = Tools(tree)
    tools.kernel_log(LOG)
    assert lines(tree, tools) == ("x86/cpu: VMX (outside TXT) disabled by BIOS", "kvm: x")
    [call] = tools.calls()
    assert {"--dmesg", "--boot"} <= set(call)


def test_what_journalctl_remarks_is_no_line_of_the_kernel(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tools = Tools(tree)
    tools.fail("journalctl", code=1, words="-- VMX (outside TXT): no journal files were found --")
    assert lines(tree, tools) == ()


def test_without_a_journal_the_kernel_itself_is_read(tmp_path: Path) -> None:
    tree = Tree(tmp_path).write(
        "/dev/kmsg", "6,1,0,-;Linux version\n3,2,5,-;kvm: x\n SUBSYSTEM=kvm: x\n6,3,9,-;\xff\n"
    )
    tools = Tools(tree)
    assert lines(tree, tools) == ("kvm: x",)
    tools.without("journalctl")
    assert lines(tree, tools) == ("kvm: x",)
    tree.gone("/dev/kmsg")
    assert lines(tree, tools) == ()


def test_the_real_kernel_is_read_to_its_end(tmp_path: Path) -> None:
    """Without journalctl on the path: as far as it may be read, and that comes to an end."""
    shown = subprocess.run(["dmesg"], capture_output=True, text=True, check=False).stdout
    found = run(kernellog.lines(Root(), Commands(str(tmp_path)), "."))
    assert bool(found) is (os.access("/dev/kmsg", os.R_OK) and bool(shown))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"x3a": 0b001}, "IA32_FEATURE_CONTROL"),
        ({"x3a": 0b011}, "IA32_FEATURE_CONTROL"),  # inside TXT only
        ({"x3a": 0b101}, ""),
        ({"x3a": 0b000}, ""),  # not locked: the kernel turns it on
        ({"x3a": 0b101, "xc0010114": 0x10}, "VM_CR"),
        ({"x3a": 0b101, "xc0010114": 0x08}, ""),
    ],
)
def test_registers(tmp_path: Path, values: dict[str, int], words: str) -> None:
    said = msr.locked_off(registers(Tree(tmp_path), **values).root)
    assert words in said
    assert bool(words) is bool(said)


def test_without_registers_nothing_is_said(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    assert msr.locked_off(tree.root) == ""
    assert msr.locked_off(tree.write("/dev/cpu/0/msr", "short").root) == ""


def test_other_hypervisors(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tools = Tools(tree)
    assert others(tree.root, tools.kmod) == ()
    tree.module("vboxdrv", refcnt=2).loadable("vboxnetflt", needs=("vboxdrv",)).module("vboxnetflt")
    tree.module("vmmon")
    assert others(tree.root, tools.kmod) == (
        Other("VirtualBox", "vboxdrv", 2),
        Other("VMware Workstation", "vmmon", 0),
    )
