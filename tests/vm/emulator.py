# SPDX-License-Identifier: LGPL-2.1-or-later
"""One QEMU process with its wires; it never outlives the Python process that started it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from pathlib import Path

from tests.vm import console, hardware
from tests.vm.agent_client import AgentClient
from tests.vm.problem import KernelPanicError, MachineDiedError, OutOfTimeError, QmpError
from tests.vm.qmp import Qmp


class Emulator:
    """Starts QEMU. To be made in a thread that lives as long as the machine: QEMU dies with that thread."""

    def __init__(
        self, config: hardware.Hardware, files: hardware.Files, log: Path, snapshot: str | None = None
    ) -> None:
        hardware.emulator_version()
        self._log = log
        self._words = log.with_name("qemu.log")
        self._closed = False
        pairs = [socket.socketpair() for _ in range(4)]
        ours, theirs = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        wires = hardware.Wires(*(wire.fileno() for wire in theirs))
        command = hardware.arguments(config, files, wires, snapshot)
        with self._words.open("ab") as words:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig=KILL", "--", *command],
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                pass_fds=[wire.fileno() for wire in theirs],
                # Ctrl-C at a person's terminal is for the person's program, not for the machine.
                start_new_session=True,
                env={**os.environ, "QEMU_AUDIO_DRV": "none"},
            )
        for wire in theirs:
            wire.close()
        self.shell = ours[3]
        self.agent = AgentClient(ours[2], self.check)
        self.console = console.Console(ours[1], log, self.agent.wake)
        self._qmp_wire = ours[0]
        try:
            self.qmp = Qmp(self._qmp_wire, self.check)
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return not self._closed and self._process.poll() is None

    def check(self) -> None:
        """Raise KernelPanicError or MachineDiedError if that is what happened."""
        if self.console.panic is not None:
            raise KernelPanicError(f"{self.console.panic}\n{console.tail(self._log)}")
        if not self.alive:
            raise MachineDiedError(f"QEMU is gone (status {self._process.returncode})\n{self._said()}")

    def quit(self) -> None:
        """End QEMU in good order: its disk is whole, the guest's own caches are lost."""
        if self.alive:
            with contextlib.suppress(QmpError, MachineDiedError, OutOfTimeError):
                self.qmp.execute("quit", limit=20)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=20)
        self.kill()

    def kill(self) -> None:
        """End QEMU at once, by its pid."""
        if not self._closed:
            self._process.kill()
            self._process.wait(timeout=60)
        self._close()

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self.console.close()
            self.agent.close()
            self._qmp_wire.close()
            self.shell.close()

    def _said(self) -> str:
        words = self._words.read_text(errors="replace").strip()[-2000:]
        return f"{words}\n{console.tail(self._log)}"
