# SPDX-License-Identifier: LGPL-2.1-or-later
"""A host made of a tree, fake tools and a fake KVM, as the tests of this room need it."""

from __future__ import annotations

from dataclasses import dataclass

from nestd.host.machine import Host
from nestd.model import Check, Status
from nestd.nesting.circumstances import Circumstances, gather
from nestd.nesting.diagnosis import Diagnosis
from nestd.nesting.observer import Observer
from nestd.nesting.status import Reading, read
from tests.support.fakekvm import FakeKvm
from tests.support.loop import run
from tests.support.tools import Tools
from tests.support.tree import RELEASE, Tree

BARE_METAL = Circumstances("none")


@dataclass(frozen=True, slots=True)
class Machine:
    """A tree and what acts on it."""

    tree: Tree
    tools: Tools
    kvm: FakeKvm
    host: Host

    @classmethod
    def of(cls, tree: Tree) -> Machine:
        """The machine that the tree describes."""
        # The folder that kmod itself ships; without it no drop-in could be kept.
        tree.path("/etc/modprobe.d").mkdir(parents=True, exist_ok=True)
        tools, kvm = Tools(tree), FakeKvm(tree)
        return cls(tree, tools, kvm, Host(tree.root, tools.commands, tools.kmod, kvm, RELEASE))

    def read(self, circumstances: Circumstances = BARE_METAL) -> Reading:
        """What is true now."""
        return read(self.host, circumstances)

    def gather(self) -> Circumstances:
        """The circumstances, as the daemon looks them up at its start."""
        return run(gather(self.host))

    def diagnose(self) -> tuple[Status, tuple[Check, ...]]:
        """Diagnose, and the status that it leaves."""

        async def look() -> tuple[Status, tuple[Check, ...]]:
            observer = Observer(self.host, BARE_METAL, lambda _, __: None)
            checks = await Diagnosis(self.host, observer, ()).run()
            return observer.status, checks

        return run(look())

    def state(self) -> dict[str, str]:
        """Every file of the tree that a change could touch, with its text."""
        top = self.tree.top
        folders = (top / "etc", top / "sys")
        return {
            str(path): path.read_text()
            for folder in folders
            for path in sorted(folder.rglob("*"))
            # the tree's builder shows two files more than its modprobe makes
            if path.is_file() and path.name not in {"coresize", "taint"}
        }
