# SPDX-License-Identifier: LGPL-2.1-or-later
"""nestd's own service on the machine that a tree describes, as a process: `daemon_main BUS TREE`.

All of it is real but the files below TREE, the programs in TREE/.kernel/bin, and /dev/kvm.
"""

from __future__ import annotations

import sys
from pathlib import Path

from nestd import service
from nestd.host.commands import Commands
from nestd.host.kmod import Kmod
from nestd.host.machine import Host
from nestd.host.root import Root
from nestd.model import KvmAnswer
from tests.support.fakekvm import FakeKvm
from tests.support.tree import RELEASE, Tree


class BuiltTree(Tree):
    """A tree that another process has built."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.root = Root(str(top))


class KvmOfTheTree(FakeKvm):
    """Refuses with the errno that /.kernel/kvm-refuses has, if there is one."""

    def ask(self) -> KvmAnswer:
        self.refuse(int(self._root.read("/.kernel/kvm-refuses") or 0))
        return super().ask()


def main(bus: str, top: str) -> int:
    """Serve until SIGTERM; the exit code is the service's."""
    tree = BuiltTree(Path(top))
    commands = Commands(str(tree.top / ".kernel" / "bin"))
    kmod = Kmod(tree.root, commands, RELEASE)
    return service.run(bus, Host(tree.root, commands, kmod, KvmOfTheTree(tree), RELEASE))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
