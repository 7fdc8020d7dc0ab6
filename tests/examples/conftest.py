# SPDX-License-Identifier: LGPL-2.1-or-later
"""The examples as they are, run as programs against the real daemon on the machine of tests/daemon."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemon.conftest import bus, daemon, root, tools, tree  # the same machine
from tests.support.privatebus import PrivateBus

__all__ = ["LIMIT", "Run", "bus", "daemon", "root", "run", "tools", "tree"]

EXAMPLES = Path(__file__).parents[2] / "examples"
LIMIT = 300.0  # seconds; only a hang takes so long
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(bus: PrivateBus) -> Run:
    """Runs a program, an example by its name, with the private bus as the system bus; `uid`: as whom."""

    def run(program: str | Path, *arguments: str, uid: int = 0) -> subprocess.CompletedProcess[str]:
        # Debian's Python, as a user has it: not the one of the virtual environment.
        environment = bus.environment | {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        environment.pop("VIRTUAL_ENV", None)
        return subprocess.run(
            [EXAMPLES / program, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT,
            preexec_fn=(lambda: os.setuid(uid)) if uid else None,
        )

    return run
