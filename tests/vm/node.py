# SPDX-License-Identifier: LGPL-2.1-or-later
"""A lab's node with QEMU and KVM inside: its initramfs, and a hand on its console."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

from tests.vm import counter
from tests.vm.agent_client import Running
from tests.vm.machine import Machine
from tests.vm.problem import CommandError

_FILES = Path(__file__).parent / "nodefiles"
_FOLDER = "/var/lib/nestd-test"
# Seconds: ten times what a node's boot, the longest, takes on a quiet machine.
LIMIT = 600.0


def initramfs(machine: Machine) -> str:
    """Make it in the machine from the machine's own files (10 s); returns its path there."""
    path = f"{_FOLDER}/node.cpio"
    files = [(file.name, file.read_bytes()) for file in sorted(_FILES.iterdir())]
    machine.push(*files, ("counter.bin", counter.firmware()), to=f"{_FOLDER}/files")
    machine.run(["bash", f"{_FOLDER}/files/build", path], timeout=LIMIT)
    return path


class Node:
    """A node with a shell on its console, to which `console` is attached (`nestctl console`)."""

    def __init__(self, name: str, console: Running) -> None:
        self.name = name
        self._console = console
        self._numbers = itertools.count(1)

    def wait_for(self, text: str) -> str:
        """Return all that its console said as soon as `text` is in it."""
        return self._console.wait_for(text, LIMIT).replace("\r", "")

    def counted(self, number: int) -> None:
        """Return when the counter, here, has said `number`, which is a multiple of counter.EVERY."""
        self.wait_for(f"{self.name} counts {number:08X}")

    def run(self, command: str) -> str:
        """Type a command; returns the console's words from then to its end. CommandError if it fails."""
        before = len(self.wait_for(""))
        mark = f"=end{next(self._numbers)}:"
        # The typed line itself must not look like what is waited for.
        self._console.write(f"{command}; echo $?{mark[:4]}''{mark[4:]}\n")
        said = self.wait_for(mark)[before:]
        code = re.findall(r"(\d+)" + mark, said)
        if code != ["0"]:
            raise CommandError(f"{self.name}: {command} ended with {code}\n{said}")
        return said

    def told(self, command: str, *keys: str) -> list[str]:
        """Type a command; returns what stands behind `key: ` in its output, for each of `keys`."""
        said = self.run(command)
        found = []
        for key in keys:
            values = re.findall(rf"^{key}: (.*)$", said, re.MULTILINE)
            if len(values) != 1:
                raise CommandError(f"{self.name}: {command} did not tell {key} once\n{said}")
            found.append(values[0])
        return found

    def answered(self, command: str, key: str) -> Any:
        """What QEMU returned, from a line `key: {"return": …}`."""
        (line,) = self.told(command, key)
        return json.loads(line)["return"]
