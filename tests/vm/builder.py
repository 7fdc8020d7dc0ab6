# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs what builds images and kernels: fenced in, logged, its end shown when it fails."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.vm.problem import BuildError
from tests.vm.progress import Progress


def run(
    command: Sequence[str | Path], log: Path, said: Progress = lambda _line: None, cwd: Path | None = None
) -> None:
    """Run a builder in namespaces of its own: its mounts and processes can neither outlive it nor be seen.

    Raises BuildError with the end of `log`, to which all of its output goes; `said` gets each line too.
    """
    fence = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    with log.open("a") as file:
        print(f"+ {' '.join(map(str, command))}", file=file, flush=True)
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig=KILL", "--", *fence, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
            cwd=cwd,
        )
        with process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    file.write(line)
                    said(line.rstrip())
            except BaseException:
                process.kill()
                raise
    if process.returncode != 0:
        end = "".join(log.read_text(errors="replace").splitlines(keepends=True)[-25:])
        raise BuildError(f"{command[0]} ended with {process.returncode}:\n{end}", f"The whole log: {log}")
