# SPDX-License-Identifier: LGPL-2.1-or-later
"""Messages that wait to be sent, with the descriptors that go with them."""

from __future__ import annotations

import array
import os
import socket
from collections import deque
from collections.abc import Sequence

_BYTES = 1 << 20
_BATCH = 64  # messages in one sendmsg


class Outbox:
    """Owns the descriptors put in: each is closed once it was sent, or when it never can be."""

    def __init__(self) -> None:
        self._queue: deque[tuple[bytes | memoryview, Sequence[int]]] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def full(self) -> bool:
        """Whether no more calls are to be read until this has drained. Nothing is ever dropped."""
        return self._bytes >= _BYTES

    def put(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Queue a message."""
        self._queue.append((data, fds))
        self._bytes += len(data)

    def send(self, sock: socket.socket) -> bool:
        """Send until all is sent or the socket is full; whether all is sent. Raises OSError."""
        while self._queue:
            batch, rights = self._batch()
            try:
                sent = sock.sendmsg(batch, rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except (BlockingIOError, InterruptedError):
                return False
            self._sent(sent)
        return True

    def clear(self) -> None:
        """Forget everything; the descriptors are closed."""
        for _, fds in self._queue:
            _close(fds)
        self._queue.clear()
        self._bytes = 0

    def _batch(self) -> tuple[list[bytes | memoryview], list[tuple[int, int, array.array[int]]]]:
        """What goes out together: one message with its descriptors, or all up to the next that has some."""
        batch: list[bytes | memoryview] = []
        for data, fds in self._queue:
            if fds:
                rights = array.array("i", fds)
                return (batch, []) if batch else ([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            batch.append(data)
            if len(batch) == _BATCH:
                break
        return batch, []

    def _sent(self, size: int) -> None:
        """Take `size` bytes off the front. Descriptors went with the first of them."""
        self._bytes -= size
        while size:
            data, fds = self._queue.popleft()
            _close(fds)
            if len(data) > size:
                self._queue.appendleft((memoryview(data)[size:], ()))
                return
            size -= len(data)


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
