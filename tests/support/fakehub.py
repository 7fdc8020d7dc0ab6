# SPDX-License-Identifier: LGPL-2.1-or-later
"""A program that takes the arguments of QEMU as a hub and speaks its part of QMP; no frame gets through.

It stands alone beside fakeqemu.py, which installs it. tests/guests/test_segment.py has the real one.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from itertools import pairwise


class _Hub:
    def __init__(self) -> None:
        self._descriptors: dict[str, int] = {}
        self._netdevs: set[str] = set()

    def serve(self, connection: socket.socket) -> None:
        """One session."""
        connection.sendall(b'{"QMP": {"version": {}, "capabilities": ["oob"]}}\r\n')
        received: list[int] = []
        buffer = b""
        while True:
            data, descriptors, _, _ = socket.recv_fds(connection, 4096, 4)
            received += descriptors
            if not data:
                return
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                request = json.loads(line)
                answer = self._answer(request["execute"], request.get("arguments", {}), received)
                connection.sendall(json.dumps({**answer, "id": request["id"]}).encode() + b"\r\n")

    def _answer(self, command: str, given: dict[str, object], received: list[int]) -> dict[str, object]:
        name = str(given.get("id", ""))
        match command:
            case "getfd":
                if not received:
                    return _error("No file descriptor supplied via SCM_RIGHTS")
                self._descriptors[str(given["fdname"])] = received.pop(0)
            case "netdev_add":
                if name in self._netdevs:
                    return _error(f"Duplicate ID '{name}' for netdev")
                if given["type"] == "socket" and given["fd"] not in self._descriptors:
                    return _error(f"File descriptor named '{given['fd']}' has not been found")
                if given["type"] == "hubport" and given["netdev"] not in self._netdevs:
                    return _error(f"netdev '{given['netdev']}' not found")
                self._netdevs.add(name)
            case "netdev_del":
                if name not in self._netdevs:
                    return _error(f"Device '{name}' not found")
                self._netdevs.discard(name)
                if name in self._descriptors:
                    os.close(self._descriptors.pop(name))
        return {"return": {}}


def _error(words: str) -> dict[str, object]:
    return {"error": {"class": "GenericError", "desc": words}}


def _main(argv: list[str]) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    options = dict(pairwise(argv))
    assert (options["-machine"], options["-nic"]) == ("none", "none")
    path = options["-chardev"].split("path=")[1].split(",")[0]
    hub = _Hub()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(1)
        while True:
            connection, _ = server.accept()
            with connection:
                hub.serve(connection)


if __name__ == "__main__":
    _main(sys.argv[1:])
