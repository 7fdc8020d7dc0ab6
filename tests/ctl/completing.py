# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a completion finds: fake programs, a nestd that runs or not, guests, labs, hosts and machines."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import NamedTuple

from tests.ctl.shells import Shell

ODD = "odd$(touch${IFS}hurt)"
TABLES = {
    "list": f"NAME  STATE\ndemo  running\ndemo2  running\n{ODD}  running\n",
    "list --all": f"NAME  STATE\ndemo  running\ndemo2  running\n{ODD}  running\ngone  failed\n",
    "lab list": "NAME  STATE\ntown  running\n",
}


class Place(NamedTuple):
    """A shell, and the folder whose fake programs it finds first."""

    shell: Shell
    folder: Path

    def say(self, words: str, table: str) -> None:
        """What `nestctl WORDS` prints from now on."""
        (self.folder / f"nestctl {words} --no-ask-password").write_text(table)

    def calls(self) -> list[str]:
        """What nestctl was asked since the last time."""
        calls = self.folder / "calls"
        asked = calls.read_text().splitlines()
        calls.write_text("")
        return asked


def program(folder: Path, name: str, script: str) -> None:
    """Make a program of a line of sh, which runs in the folder."""
    (folder / name).write_text(f"#!/bin/sh\ncd {shlex.quote(str(folder))} || exit\n{script}\n")
    (folder / name).chmod(0o755)


def furnish(folder: Path) -> None:
    """Programs that answer as if nestd ran, with proper guests and a hostile one; hosts that ssh knows."""
    program(folder, "nestctl", 'echo "$*" >> calls; [ ! -e stuck ] || exec sleep 600; cat "nestctl $*"')
    program(
        folder, "busctl",
        '[ "$*" = "--system call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus '
        'NameHasOwner s org.nestd1" ] || exit; [ -e owned ] && echo "b true" || echo "b false"',
    )  # fmt: skip
    program(folder, "machinectl", "printf 'web container\\nhurt$(touch${IFS}hurt) vm\\nwork vm\\n'")
    (folder / "owned").touch()
    (folder / "calls").touch()
    (folder / ".ssh").mkdir()
    (folder / ".ssh/known_hosts").write_text("far.example ssh-ed25519 AAAA\nother.example ssh-ed25519 AAAA\n")
    for words, table in TABLES.items():
        (folder / f"nestctl {words} --no-ask-password").write_text(table)
