# SPDX-License-Identifier: LGPL-2.1-or-later
"""nestd's own .deb: built here, installed in the machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.vm.machine import Machine
from tests.vm.problem import BuildError

INSTALLED = "installed"
_TREE = Path(__file__).parents[2]


def build(*options: str | Path) -> Path:
    """Run packaging/build-deb with its options and return the .deb, whose path is the last line it prints.

    Raises BuildError with the end of its output.
    """
    done = subprocess.run(
        [_TREE / "packaging/build-deb", *options], cwd=_TREE, capture_output=True, text=True, check=False
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        end = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
        raise BuildError(f"packaging/build-deb ended with {done.returncode}:\n{end}")
    deb = (_TREE / lines[-1]).resolve()
    if not deb.is_file():
        raise BuildError(f"packaging/build-deb named {lines[-1]!r}, which is no file")
    return deb


def install(machine: Machine, deb: Path) -> None:
    """Install the .deb with dpkg alone (all it depends on is in the image) and return when nestd serves.

    Raises CommandError with dpkg's or systemd's words.
    """
    folder = machine.push(deb)
    machine.sh(f"dpkg --install '{folder}/{deb.name}'")
    # Type=notify: this returns when it is ready, and does nothing if the package has started it.
    machine.sh("systemctl start nestd.service || { journalctl --no-pager -u nestd.service >&2; exit 1; }")
    machine.settle()
