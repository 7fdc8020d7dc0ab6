# SPDX-License-Identifier: LGPL-2.1-or-later
"""systemd-journald's socket, for a daemon that sees it in its place."""

from __future__ import annotations

import socket
from pathlib import Path
from types import TracebackType


class FakeJournal:
    """`with FakeJournal(folder) as journal`: what is sent stays in the socket until `lines` takes it out.

    The socket has room for net.unix.max_dgram_qlen lines; nestd writes the others to its stderr.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def lines(self) -> list[str]:
        """Each entry that has come, as one text of its fields (the journal's native protocol)."""
        found = []
        try:
            while True:
                found.append(self._socket.recv(1 << 18).decode(errors="replace"))
        except BlockingIOError:
            return found

    def __enter__(self) -> FakeJournal:
        self._socket.bind(str(self.folder / "socket"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
