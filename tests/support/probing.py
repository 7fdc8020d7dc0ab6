# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a tree needs for Verify: a kernel, its modules, and the tools that the probe guest is packed with."""

from __future__ import annotations

import shutil

from tests.support.tools import Tools
from tests.support.tree import RELEASE, Tree

TOOLS = ("sh", "mount", "insmod", "ldd", "cpio", "find", "sort", "gzip", "rm", "install")


def furnish(tree: Tree, tools: Tools, *without: str) -> None:
    """Give the machine all of it, the tools being this machine's own, but for those of `without`."""
    tree.write(f"/boot/vmlinuz-{RELEASE}", "a kernel")
    for line in tree.read(f"/lib/modules/{RELEASE}/modules.dep").splitlines():
        tree.write(f"/lib/modules/{RELEASE}/{line.partition(':')[0]}", "a module")
    for name in TOOLS:
        found = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
        assert found, f"{name} is not installed: run tests/setup"
        if name not in without:
            (tools.folder / name).symlink_to(found)
