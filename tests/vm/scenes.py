# SPDX-License-Identifier: LGPL-2.1-or-later
"""A story told to a person and judged as it goes: commands, what each one shows, what it must show."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from tests.vm.machine import Machine
from tests.vm.progress import Progress

# Seconds: a guest's kernel may run under KVM in a machine that is itself emulated.
LIMIT = 240.0


@dataclass(frozen=True, slots=True)
class Scene:
    """One thing that is shown: what it is about, a text of bash, all that its output must contain.

    A command that begins with "! " is one that must be refused.
    """

    title: str
    command: str
    shows: tuple[str, ...]

    def text(self) -> str:
        """The whole text for bash. No pipefail: grep -m1 ends a console's reader by a broken pipe."""
        return f"{{ {self.command}\n}} 2>&1"


def tell(scene: Scene, code: int, said: str, show: Progress) -> bool:
    """Show how a scene went; whether it showed what it must."""
    show(f"\n\033[1m{scene.title}\033[0m" if sys.stdout.isatty() else f"\n{scene.title}")
    show(f"# {scene.command.removeprefix('! ')}")
    show(said.rstrip())
    missing = [words for words in scene.shows if words not in said]
    if missing:
        show(f"WRONG: this should have shown {', '.join(map(repr, missing))}.")
    if code != 0:
        show(f"WRONG: this ended with exit status {code}.")
    return code == 0 and not missing


def play(machine: Machine, story: Sequence[Scene], show: Progress) -> bool:
    """Play a story to its end, or to the first scene that is wrong; whether all was right."""
    for scene in story:
        result = machine.run(["bash", "-c", scene.text()], check=False, timeout=LIMIT)
        if not tell(scene, result.code, result.stdout, show):
            return False
    return True


def to_stdout(text: str) -> None:
    """Show it on the standard output, at once."""
    print(text, flush=True)
