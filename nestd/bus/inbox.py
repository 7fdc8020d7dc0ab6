# SPDX-License-Identifier: LGPL-2.1-or-later
"""Messages that were read and not yet handled, one queue for each sender, taken in turn."""

from __future__ import annotations

from collections import deque

from nestd.wire.message import Message

_COUNT = 4096
_BYTES = 1 << 20


class Inbox:
    """A sender with many messages waits behind its own; the order of one sender's messages is kept."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[Message]] = {}
        self._count = 0
        self._bytes = 0

    def __len__(self) -> int:
        return self._count

    @property
    def full(self) -> bool:
        """Whether reading on would hold more than the bound."""
        return self._count >= _COUNT or self._bytes >= _BYTES

    def put(self, message: Message) -> None:
        """Queue a message behind those of its sender."""
        queue = self._queues.get(message.header.sender)
        if queue is None:
            queue = self._queues[message.header.sender] = deque()
        queue.append(message)
        self._count += 1
        self._bytes += message.size

    def take(self) -> Message:
        """The next message of the sender whose turn it is. KeyError: there is none."""
        sender = next(iter(self._queues), None)
        if sender is None:
            raise KeyError("the inbox is empty")
        queue = self._queues.pop(sender)
        message = queue.popleft()
        if queue:
            self._queues[sender] = queue
        self._count -= 1
        self._bytes -= message.size
        return message

    def clear(self) -> None:
        """Forget everything."""
        self._queues.clear()
        self._count = self._bytes = 0
