# SPDX-License-Identifier: LGPL-2.1-or-later
"""A QMP client (QEMU's docs/interop/qmp-spec): one command at a time on a connected socket."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from typing import Any

from tests.vm.problem import OutOfTimeError, QmpError


class Qmp:
    """Owns `wire`. `check` is called while waiting and raises if QEMU is gone."""

    def __init__(self, wire: socket.socket, check: Callable[[], None], limit: float = 60.0) -> None:
        self._wire = wire
        self._check = check
        self._buffer = bytearray()
        self.events: list[str] = []
        self._wait(lambda message: "QMP" in message, "QEMU's greeting", limit)
        self.execute("qmp_capabilities", limit=limit)

    def execute(self, command: str, arguments: dict[str, Any] | None = None, *, limit: float = 60.0) -> Any:
        """Run `command` and return what it returns.

        Raises QmpError with QEMU's words, OutOfTimeError after `limit` seconds.
        """
        request: dict[str, Any] = {"execute": command}
        if arguments is not None:
            request["arguments"] = arguments
        try:
            self._wire.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            self._check()
            raise QmpError(f"{command}: {error}") from error
        answer = self._wait(lambda message: "return" in message or "error" in message, command, limit)
        if "error" in answer:
            raise QmpError(f"{command}: {answer['error'].get('desc', answer['error'])}")
        return answer["return"]

    def monitor(self, line: str, *, limit: float = 120.0) -> str:
        """Run a line of the human monitor (savevm and loadvm want no block-job names there).

        Raises QmpError if it says anything: those commands are silent when they work.
        """
        said = str(self.execute("human-monitor-command", {"command-line": line}, limit=limit)).strip()
        if said:
            raise QmpError(f"{line}: {said}")
        return said

    def close(self) -> None:
        self._wire.close()

    def _wait(self, wanted: Callable[[dict[str, Any]], bool], what: str, limit: float) -> dict[str, Any]:
        end = time.monotonic() + limit
        while time.monotonic() < end:
            while b"\n" in self._buffer:
                line, _, rest = bytes(self._buffer).partition(b"\n")
                self._buffer = bytearray(rest)
                message: dict[str, Any] = json.loads(line)
                if "event" in message:
                    self.events.append(message["event"])
                elif wanted(message):
                    return message
            self._wire.settimeout(0.2)
            try:
                piece = self._wire.recv(65536)
            except TimeoutError:
                self._check()
                continue
            except ConnectionError:
                piece = b""
            if not piece:
                self._check()
                raise QmpError(f"{what}: QEMU closed its monitor")
            self._buffer += piece
        raise OutOfTimeError(f"{what}: no answer from QEMU after {limit:.0f} s")
