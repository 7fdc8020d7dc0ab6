# SPDX-License-Identifier: LGPL-2.1-or-later
"""Starts the fake systemd (fakesystemd_program.py) on a private bus, with a journalctl that goes with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import TracebackType

_JOURNALCTL = """#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
for last; do :; done
case "$*" in
    --sync) exit 0 ;;
    *" -o json "*) exec cat "TOP/journal/${last#INVOCATION_ID=}.systemd" ;;
esac
exec cat "TOP/journal/${last#_SYSTEMD_INVOCATION_ID=}"
"""


class FakeSystemd:
    """`with FakeSystemd(bus.address, top, path): ...`; installs journalctl into the folder `path`."""

    def __init__(self, address: str, top: Path, path: Path) -> None:
        self._argv = [sys.executable, "-m", "tests.support.fakesystemd_program", address, str(top)]
        (top / "journal").mkdir()
        journalctl = path / "journalctl"
        journalctl.write_text(_JOURNALCTL.replace("TOP", str(top)))
        journalctl.chmod(0o755)

    def __enter__(self) -> FakeSystemd:
        self._process = subprocess.Popen(self._argv, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.communicate(timeout=20)
