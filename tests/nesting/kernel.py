# SPDX-License-Identifier: LGPL-2.1-or-later
"""A tree whose kernel acts in this process, and tells of each moment for something to come in between."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

from nestd.errors import ToolFailed
from nestd.host.commands import Commands
from nestd.host.kmod import Kmod
from nestd.host.root import Root
from tests.support.tree import RELEASE, Tree

Moment = Callable[[str], None]
_WRITTEN = ("/var/lib/nestd", "/etc/modprobe.d")


class TellingRoot(Root):
    """Tells of each time that a folder is about to be opened in which nestd writes."""

    def __init__(self, top: str, moment: Moment) -> None:
        super().__init__(top)
        self._moment = moment

    def path(self, absolute: str) -> str:
        if absolute in _WRITTEN:
            self._moment(absolute)
        return super().path(absolute)


class TellingKmod(Kmod):
    """modprobe and rmmod as tests/support/fakes.py has them, as far as the tests here go; no processes."""

    def __init__(self, tree: Tree, root: Root, moment: Moment) -> None:
        super().__init__(root, Commands(""), RELEASE)
        self._tree = tree
        self._moment = moment

    def require_tools(self) -> None:
        """They are here."""

    async def load(self, module: str, arguments: Mapping[str, str]) -> None:
        self._moment("before modprobe")
        insert(self._tree, module, arguments)
        self._moment("after modprobe")

    async def unload(self, module: str) -> None:
        self._moment("before rmmod")
        remove(self._tree, module)
        self._moment("after rmmod")


def insert(tree: Tree, module: str, arguments: Mapping[str, str]) -> None:
    """Load it, with what modprobe.d says and then with `arguments`; one that is loaded is left alone."""
    if tree.root.exists(f"/sys/module/{module}"):
        return
    parameters = json.loads(tree.read(f"/.kernel/modules/{module}"))["defaults"]
    given: dict[str, str] = {}
    for name in tree.root.names("/etc/modprobe.d"):
        # A name that begins with a dot, or ends otherwise, is none of modprobe's.
        if name.endswith(".conf") and not name.startswith("."):
            given |= dict(
                re.findall(rf"^options {module} (\w+)=(\S+)", tree.read(f"/etc/modprobe.d/{name}"), re.M)
            )
    tree.module(module, **{**parameters, **given, **arguments})


def remove(tree: Tree, module: str) -> None:
    """Unload it. ToolFailed: it is in use, or not there."""
    if not tree.root.exists(f"/sys/module/{module}"):
        raise ToolFailed(("rmmod", module), 1, "is not currently loaded")
    if int(tree.read(f"/sys/module/{module}/refcnt")):
        raise ToolFailed(("rmmod", module), 1, "is in use")
    tree.gone(f"/sys/module/{module}")
    for held in tree.path("/sys/module").glob(f"*/holders/{module}"):
        held.rmdir()
        count = held.parents[1] / "refcnt"
        count.write_text(f"{int(count.read_text()) - 1}\n")
