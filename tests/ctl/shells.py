# SPDX-License-Identifier: LGPL-2.1-or-later
"""bash, fish and zsh, asked what they offer for a line that is not yet complete.

bash and zsh have that only in an interactive shell: they get a terminal, the line is typed and the tabulator
pressed; what would be shown is written to a file. fish tells it by `complete -C`.
"""

from __future__ import annotations

import os
import pty
import select
import shlex
import shutil
import subprocess
import termios
import time
from collections.abc import Mapping
from pathlib import Path

COMPLETIONS = Path(__file__).parents[2] / "data" / "completions"
LIMIT = 60.0  # seconds; only a hang takes so long
KILL_LINE = b"\x15"
_END = "(end)"

# The shells run these; OFFERED is the file.
_BASH = """
{helper}
source {script}
_offered() {{
    _nestctl "$@"
    printf '%s\\n' "${{COMPREPLY[@]}}" {end} >> "$OFFERED"
    COMPREPLY=()
}}
complete -F _offered nestctl
bind 'set bell-style none'
echo {end} >> "$OFFERED"
"""
# compadd is what every match goes through: with -A, -D or -O somebody only asks, else it is to be shown.
_ZSH = """
fpath=({folder} $fpath)
autoload -Uz compinit
compinit -u -d "$HOME/compdump"
zstyle ':completion:*' completer _complete
zstyle ':completion:*' insert-tab false
compadd() {{
    if [[ ${{@[1,(i)(-|--)]}} == *-(O|A|D)\\ * ]]; then
        builtin compadd "$@"
        return
    fi
    local -a hits
    builtin compadd -A hits "$@"
    local code=$?
    print -rl -- $hits >> $OFFERED
    return code
}}
ended() {{
    echo {end} >> $OFFERED
    comppostfuncs=( ended )
}}
comppostfuncs=( ended )
unsetopt beep
echo {end} >> $OFFERED
"""
_FISH = """
set fish_complete_path {folder} $fish_complete_path
while read -l line
    complete -C "$line"
    echo {end}
end
"""


class Shell:
    """One shell with the completion; `folder` is its home, its working folder and the first on its PATH.

    `helper` is what bash runs before.
    """

    def __init__(self, name: str, folder: Path, environment: Mapping[str, str], helper: str = "") -> None:
        self._name = name
        self._offered = folder / f"offered-by-{name}"
        self._offered.write_text("")
        self._folder = folder
        own = {"HOME": str(folder), "TERM": "dumb", "HISTFILE": "", "OFFERED": str(self._offered)}
        self._environment = {**environment, **own, "PATH": f"{folder}:{os.environ['PATH']}"}
        self._helper = helper

    def __enter__(self) -> Shell:
        start = {"bash": self._terminal, "zsh": self._terminal, "fish": self._pipes}
        self._process = start[self._name]()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(LIMIT)
        for descriptor in (self._keys, self._screen):
            os.close(descriptor)

    def offers(self, line: str) -> list[str]:
        """What is offered where the cursor stands behind `nestctl LINE`, sorted, without descriptions.

        Where the value of an option is completed, that alone.
        """
        typed = f"nestctl {line}".encode()
        self._offered.write_text("")
        if self._name == "fish":
            os.write(self._keys, typed + b"\n")
            found = [row.partition("\t")[0] for row in self._until_ended()]
            option = line.rpartition(" ")[2].rpartition("=")[0]
            return sorted({row.removeprefix(f"{option}=") for row in found})
        os.write(self._keys, KILL_LINE + typed + b"\t")
        return sorted(set(self._until_ended()))

    def _until_ended(self) -> list[str]:
        deadline = time.monotonic() + LIMIT
        said = b""
        while True:
            assert time.monotonic() < deadline and self._process.poll() is None, said.decode(errors="replace")
            if select.select([self._screen], [], [], 0.01)[0]:
                said += os.read(self._screen, 65536)
            rows = (said.decode() if self._name == "fish" else self._offered.read_text()).split("\n")
            if _END in rows:
                return [row for row in rows[: rows.index(_END)] if row]

    def _terminal(self) -> subprocess.Popen[bytes]:
        self._screen, theirs = pty.openpty()
        self._keys = os.dup(self._screen)
        termios.tcsetwinsize(theirs, (50, 200))
        script = {"bash": _BASH, "zsh": _ZSH}[self._name].format(
            folder=shlex.quote(str(COMPLETIONS)),
            script=shlex.quote(str(COMPLETIONS / "nestctl.bash")),
            helper=self._helper,
            end=shlex.quote(_END),
        )
        (self._folder / f"{self._name}rc").write_text(script)
        argv = {"bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-f", "-i"]}[self._name]
        process = subprocess.Popen(
            argv, env=self._environment, cwd=self._folder, stdin=theirs, stdout=theirs, stderr=theirs,
            start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        self._process = process
        os.write(self._keys, f"source ./{self._name}rc\n".encode())
        self._until_ended()
        return process

    def _pipes(self) -> subprocess.Popen[bytes]:
        # fish looks for nestctl.fish in folders, and data/completions is one.
        script = _FISH.format(folder=shlex.quote(str(COMPLETIONS)), end=shlex.quote(_END))
        theirs, self._keys = os.pipe()
        self._screen, out = os.pipe()
        process = subprocess.Popen(
            [shutil.which("fish") or "fish", "--no-config", "-c", script],
            env=self._environment, cwd=self._folder, stdin=theirs, stdout=out, stderr=out,
        )  # fmt: skip
        os.close(theirs)
        os.close(out)
        return process
