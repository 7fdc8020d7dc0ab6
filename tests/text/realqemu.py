# SPDX-License-Identifier: LGPL-2.1-or-later
"""The real QEMU with nestd's arguments, under TCG, paused until somebody tells it to go on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nestd import tasks
from nestd.guestmodel import Firmware, GuestSpec
from nestd.host.qmpsocket import QmpSocket, connect
from nestd.model import Extension
from nestd.text import qemu


@contextmanager
def running(
    folder: Path, spec: GuestSpec, firmware: Firmware | None = None, **how: Any
) -> Iterator[subprocess.Popen[str]]:
    """QEMU with its sockets, and the console's log `log`, in `folder`; `how` goes to Popen."""
    argv = qemu.arguments(spec, Extension.SVM, str(folder), str(folder / "log"), firmware)
    argv = [value.replace("accel=kvm", "accel=tcg") for value in argv]
    with subprocess.Popen(["qemu-system-x86_64", *argv], stderr=subprocess.PIPE, text=True, **how) as process:
        try:
            yield process
        finally:
            process.kill()


async def monitor_of(folder: Path, process: subprocess.Popen[str]) -> QmpSocket:
    """A QMP session with it."""
    async with tasks.timeout(60):
        while True:
            try:
                return QmpSocket(connect(str(folder / "qmp"), os.getuid()), 30)
            except (FileNotFoundError, ConnectionRefusedError):
                assert process.poll() is None, process.communicate()[1]
                await tasks.sleep(0.02)
