# SPDX-License-Identifier: LGPL-2.1-or-later
"""A folder of fake programs (tests/support/fakes.py) that act on a tree as the real ones act on a machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from nestd.host.commands import Commands
from nestd.host.kmod import Kmod
from tests.support.tree import RELEASE, Tree

NAMES = ("modprobe", "rmmod", "modinfo", "systemd-detect-virt", "journalctl")


class Tools:
    """The programs of `tree`, as `commands`, and the `kmod` that uses them."""

    def __init__(self, tree: Tree, names: tuple[str, ...] = NAMES) -> None:
        self._kernel = tree.top / ".kernel"
        self.folder = self._kernel / "bin"
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            shutil.copy(Path(__file__).with_name("fakes.py"), self.folder / name)
            (self.folder / name).chmod(0o755)
        self.commands = Commands(str(self.folder))
        self.kmod = Kmod(tree.root, self.commands, RELEASE)

    def without(self, name: str) -> None:
        """The program is not installed."""
        (self.folder / name).unlink()

    def fail(
        self,
        tool: str,
        module: str = "",
        *,
        code: int = 0,
        words: str = "",
        hang: float = 0.0,
        idle: bool = False,
    ) -> None:
        """The next call of `tool` for `module` (empty: for any) goes wrong; say it twice for the next two.

        It sleeps `hang` seconds; then it ends with `code` and `words`, having done nothing; with
        no code it acts as ever, unless `idle`: then it claims success and does nothing.
        """
        line = {"tool": tool, "module": module, "code": code, "words": words, "hang": hang, "idle": idle}
        with (self._kernel / "failures").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def virtualization(self, word: str, machine: str = "") -> None:
        """systemd-detect-virt's word; `machine` is what it says with --vm where that is another one."""
        (self._kernel / "virtualization").write_text(word + "\n")
        if machine:
            (self._kernel / "virtualization-vm").write_text(machine + "\n")

    def kernel_log(self, text: str) -> None:
        (self._kernel / "log").write_text(text)

    def calls(self) -> list[list[str]]:
        """What was called so far: each call's words, the program's name first."""
        path = self._kernel / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
