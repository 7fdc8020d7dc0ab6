# SPDX-License-Identifier: LGPL-2.1-or-later
"""The socket to the bus on the loop: whole messages in, whole messages out, neither without bound."""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Callable, Sequence

from nestd import errors, log, tasks
from nestd.bus.inbox import Inbox
from nestd.bus.outbox import Outbox
from nestd.loop import Handle, running
from nestd.wire import message
from nestd.wire.frame import BODY_LIMIT, Framer

_TURN_MESSAGES = 64
_TURN_BYTES = 256 << 10
_READ = 64 << 10
_FDS = 253  # SCM_MAX_FD of the kernel: more never come with one message
_RIGHTS = socket.CMSG_SPACE(_FDS * array.array("i").itemsize)
_CLOSING = 5.0  # seconds that what is queued may take to leave


class Stream:
    """Owns a connected, non-blocking socket.

    One turn of the loop reads once and handles at most 64 messages and 256 KiB; while the output is
    over its bound, nothing more is read or handled. `on_message` gets each message; `on_lost` is called once,
    when the peer is gone or its bytes are no longer messages. Descriptors that come are closed at once.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_message: Callable[[message.Message], None],
        on_lost: Callable[[], None],
        body_limit: int = BODY_LIMIT,
    ) -> None:
        self._loop = running()
        self._socket = sock
        self._fd = sock.fileno()
        self._on_message = on_message
        self._on_lost = on_lost
        self._framer = Framer(body_limit)
        self._parser = message.Parser()
        self._inbox = Inbox()
        self._outbox = Outbox()
        self._complaints = log.Limiter()
        self._turn: Handle | None = None
        self._reading = self._writing = self._closed = self._handling = False
        self._uncut = True  # there may be a whole message in the framer
        self._drained = tasks.Event()  # asked for by `close` alone

    def start(self, rest: bytes = b"") -> None:
        """Begin to read; `rest` was read already."""
        self._framer.feed(rest)
        self._schedule()

    def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Queue a message. The descriptors belong to the stream now; a closed stream drops everything."""
        self._outbox.put(data, fds)
        if self._closed:
            self._outbox.clear()
            return
        # What one turn has to say leaves together at its end.
        if not self._writing and not self._handling:
            self._flush()

    async def close(self) -> None:
        """Send what is queued, for at most 5 s, and close the socket."""
        self._watch(reading=False)
        if not self._closed:
            try:
                async with tasks.timeout(_CLOSING):
                    while self._outbox:
                        self._drained.clear()
                        await self._drained.wait()
            except TimeoutError:
                log.warning("the bus did not take the last replies in time")
        self._lose("")

    def _watch(self, *, reading: bool) -> None:
        if reading != self._reading:
            self._reading = reading
            if reading:
                self._loop.add_reader(self._fd, self._readable)
            else:
                self._loop.remove_reader(self._fd)
        if not reading and self._turn is not None:
            self._turn.cancel()
            self._turn = None

    def _schedule(self) -> None:
        """Go on reading, or handling, or wait for the output to drain."""
        if self._closed or self._turn is not None:
            return
        if self._outbox.full:
            self._watch(reading=False)
            return
        # While there is something left to cut, more would only pile up in the framer.
        self._watch(reading=not self._inbox.full and not self._uncut)
        if self._inbox or self._uncut:
            self._turn = self._loop.call_soon(self._take_turn)

    def _readable(self) -> None:
        try:
            data, ancillary, _, _ = self._socket.recvmsg(_READ, _RIGHTS, socket.MSG_CMSG_CLOEXEC)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(f"the connection to the bus is lost: {error}")
            return
        if ancillary:
            _close_descriptors(ancillary)
        if not data:
            self._lose("the bus closed the connection")
            return
        self._framer.feed(data)
        self._uncut = True
        if self._turn is None:
            self._take_turn()

    def _take_turn(self) -> None:
        self._turn = None
        self._handling = True
        try:
            self._handle()
        finally:
            self._handling = False
        if self._outbox and not self._writing:
            self._flush()
        if self._inbox or self._uncut or not self._reading:
            self._schedule()

    def _handle(self) -> None:
        first = None if self._inbox else self._next()
        if first is not None and not self._framer.buffered:
            self._uncut = False  # one message alone, as most come, waits for nobody
            self._deliver(first)
            return
        if first is not None:
            self._inbox.put(first)
        self._cut()
        count = size = 0
        while self._inbox and count < _TURN_MESSAGES and size < _TURN_BYTES:
            if self._closed or self._outbox.full:
                return
            taken = self._inbox.take()
            count += 1
            size += taken.size
            self._deliver(taken)

    def _deliver(self, taken: message.Message) -> None:
        try:
            self._on_message(taken)
        except Exception:  # whatever is wrong with one message, the next ones are read
            if self._complaints.passes():
                log.exception(f"a message of {taken.header.sender} could not be handled")

    def _cut(self) -> None:
        """Move what the framer has to the inbox."""
        self._uncut = True
        while not self._inbox.full:
            cut = self._next()
            if cut is None:
                self._uncut = False
                return
            self._inbox.put(cut)

    def _next(self) -> message.Message | None:
        """The framer's next whole message. A bad message costs itself, a bad stream the connection."""
        while True:
            try:
                frame = self._framer.next()
            except errors.Malformed as error:
                self._lose(f"the bus does not speak D-Bus any more: {error}")
                return None
            if frame is None:
                return None
            try:
                return self._parser.parse(frame)
            except errors.Malformed as error:
                if self._complaints.passes():
                    log.warning(f"a message was dropped: {error}")

    def _flush(self) -> None:
        try:
            done = self._outbox.send(self._socket)
        except OSError as error:
            self._lose(f"the connection to the bus is lost: {error}")
            return
        if done:
            self._drained.set()
        if self._writing is done:
            self._writing = not done
            if done:
                self._loop.remove_writer(self._fd)
            else:
                self._loop.add_writer(self._fd, self._flush)
        if not self._reading and not self._outbox.full:
            self._schedule()

    def _lose(self, reason: str) -> None:
        if self._closed:
            return
        self._closed = True
        self._watch(reading=False)
        if self._writing:
            self._loop.remove_writer(self._fd)
        self._inbox.clear()
        self._outbox.clear()
        self._drained.set()
        self._socket.close()
        if reason:
            log.error(reason)
        self._on_lost()


def _close_descriptors(ancillary: Sequence[tuple[int, int, bytes]]) -> None:
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            whole = len(data) - len(data) % array.array("i").itemsize
            for fd in array.array("i", data[:whole]):
                os.close(fd)
