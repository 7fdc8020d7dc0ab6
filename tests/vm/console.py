# SPDX-License-Identifier: LGPL-2.1-or-later
"""The machine's serial console: a log that is read as it is written, and watched for a panic."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path

_PANIC = re.compile(rb"Kernel panic - not syncing[^\r\n]*(?=[\r\n])")
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|[\x00-\x08\x0b-\x1f]")


class Console:
    """Reads `wire` to its end in a thread, appends it to the file `log`, calls `panicked` at a panic."""

    def __init__(self, wire: socket.socket, log: Path, panicked: Callable[[], None]) -> None:
        self._wire = wire
        self._log = log
        self._panicked = panicked
        self.panic: str | None = None
        self._thread = threading.Thread(target=self._read, name="vm-console", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Wait for the end of the text; QEMU must be gone."""
        self._thread.join(timeout=10)
        self._wire.close()

    def _read(self) -> None:
        recent = b""
        with self._log.open("ab", buffering=0) as log:
            while piece := self._receive():
                log.write(piece)
                recent += piece
                if match := _PANIC.search(recent):
                    self.panic = match[0].decode(errors="replace")
                    recent = b""
                    self._panicked()
                recent = recent[-256:]

    def _receive(self) -> bytes:
        try:
            return self._wire.recv(65536)
        except OSError:
            return b""


def readable(log: Path) -> str:
    """Return the text of a console log without its control characters."""
    text = log.read_bytes().decode(errors="replace") if log.exists() else ""
    return _CONTROL.sub("", text.replace("\r\n", "\n"))


def tail(log: Path, lines: int = 25) -> str:
    """Return the last lines as an error message shows them."""
    kept = [line for line in readable(log).splitlines() if line.strip()][-lines:]
    return "\n".join(["console:", *(f"  | {line}" for line in kept)]) if kept else "console: (empty)"
