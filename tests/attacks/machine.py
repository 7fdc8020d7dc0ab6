# SPDX-License-Identifier: LGPL-2.1-or-later
"""The machine that is attacked."""

from __future__ import annotations

from pathlib import Path

from tests.support.tools import Tools
from tests.support.tree import Tree

_PROCESSES, _FILES = 200, 20


def busy(top: Path) -> Tree:
    """An AMD machine with as many processes as a desktop has, two of which hold the driver."""
    tree = Tree(top).amd().module("kvm_amd").write("/etc/machine-id", "0" * 32 + "\n")
    for pid in range(1000, 1000 + _PROCESSES):
        tree.process(pid, "busy", *[f"socket:[{pid}]"] * _FILES)
    for pid in (5000, 5001):
        tree.process(pid, "qemu-system-x86", "/dev/kvm", "anon_inode:kvm-vm")
    tree.top.chmod(0o755)
    Tools(tree)
    return tree
