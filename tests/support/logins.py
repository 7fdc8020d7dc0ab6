# SPDX-License-Identifier: LGPL-2.1-or-later
"""A user with a process of its own, as polkit sees callers: by process, start time and session."""

from __future__ import annotations

import pwd
import socket
import subprocess
import sys
from types import TracebackType

from tests.support.clients import LIMIT, Client

_CONNECTS = """
import os, socket, sys
uid, gid, path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
os.setgroups([]); os.setgid(gid); os.setuid(uid)
control = socket.socket(fileno=0)
while control.recv(1):
    with socket.socket(socket.AF_UNIX) as bus:
        bus.connect(path)
        socket.send_fds(control, [b"."], [bus.fileno()])
"""


class Login:
    """A process of `uid` that connects to the bus and hands the socket over; used in a `with` statement."""

    def __init__(self, address: str, uid: int) -> None:
        self.uid = uid
        self._address = address
        self._control, theirs = socket.socketpair()
        gid = pwd.getpwuid(uid).pw_gid
        argv = [sys.executable, "-I", "-S", "-c", _CONNECTS, str(uid), str(gid)]
        with theirs:
            self._process = subprocess.Popen(
                [*argv, address.removeprefix("unix:path=")], stdin=theirs.fileno()
            )

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def client(self) -> Client:
        """A new connection of that process."""
        self._control.settimeout(LIMIT)
        self._control.sendall(b".")
        _, [descriptor], _, _ = socket.recv_fds(self._control, 1, 1)
        return Client(self._address, self.uid, socket.socket(fileno=descriptor))

    def close(self) -> None:
        """End the process; its clients go on without it."""
        self._control.close()
        self._process.wait(LIMIT)

    def __enter__(self) -> Login:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
