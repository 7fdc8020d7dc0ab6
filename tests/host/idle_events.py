# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run in a network namespace of its own: which kernel uevents have an IdleWatch look."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from nestd import tasks
from nestd.host.idle import IdleWatch
from tests.host.uevents import Injector
from tests.support.tree import Tree

_CALM = 1.5  # seconds in which the looks after an event are over


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        tree = Tree(Path(folder)).process(os.getpid(), "qemu", "anon_inode:kvm-vm")
        used = True
        told = {}
        kernel = Injector()
        with IdleWatch(tree.root, lambda: used) as watch:
            waiting = tasks.create_task(watch.idle())
            await tasks.sleep(_CALM)
            used = False
            for name, event in (
                ("others", ("change", "/devices/virtual/misc/rfkill", "misc")),
                ("kvm", ("change", "/devices/virtual/misc/kvm", "misc")),
            ):
                kernel.send(*event)
                await tasks.sleep(_CALM)
                told[name] = waiting.done()
            await tasks.wait({waiting}, 20)
        kernel.close()
        print(json.dumps(told))


if __name__ == "__main__":
    tasks.run(main())
