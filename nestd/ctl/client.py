# SPDX-License-Identifier: LGPL-2.1-or-later
"""A blocking client of nestd on the bus: one connection, one call at a time, no event loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from nestd.errors import Malformed
from nestd.wire import message
from nestd.wire.header import Flag, Header, Kind
from nestd.wire.library import Variant

from .failures import Refused, Unreachable
from .stream import Stream

NESTD = "org.nestd1"
READ_LIMIT = 25.0  # seconds, as D-Bus libraries have it
CHANGE_LIMIT = 600.0  # seconds: somebody may have to find a password, and a guest to start
NO_LIMIT = float("inf")  # an initramfs that is made anew takes as long as it takes

_BUS = "org.freedesktop.DBus"
_VALUES = 1_000_000  # in one answer; nestd is trusted more than a stranger, but not without end


class Client:
    """A connection to a message bus, for calls to nestd.

    `bus` is `system`, `session` or a D-Bus address; `interactive`: polkit may ask for a password.
    Every method raises Unreachable where the bus is not there or breaks off.
    """

    def __init__(self, bus: str, environment: Mapping[str, str], *, interactive: bool) -> None:
        self._flags = Flag.ALLOW_INTERACTIVE_AUTHORIZATION if interactive else Flag(0)
        self._serial = 0
        self._nestd = ""
        self._hear: Callable[[Header, list[Any]], None] | None = None
        self._stream = Stream(bus, environment, time.monotonic() + READ_LIMIT)
        try:
            self.call("/org/freedesktop/DBus", _BUS, "Hello", returns="s", destination=_BUS)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the bus. A call under way is not undone by it."""
        self._stream.close()

    def call(
        self,
        path: str,
        interface: str,
        member: str,
        takes: str = "",
        *values: object,
        returns: str = "",
        destination: str = NESTD,
        limit: float = READ_LIMIT,
        waiting: Callable[[], None] | None = None,
    ) -> list[Any]:
        """Call a method and give what it answers, with all variants unwrapped.

        `takes` and `returns` are D-Bus signatures; `limit` in seconds; `waiting` is called now and
        then until the answer comes. Raises Refused.
        """
        answer = self._exchange((destination, path, interface, member), takes, values, limit, waiting)
        self._stream.drop(answer.header.unix_fds)
        if answer.header.signature != returns:
            raise Unreachable(f"nestd answers {member} in another way; use the nestctl of its own version")
        return self._values(answer)

    def listen(self, hear: Callable[[Header, list[Any]], None]) -> None:
        """Have `hear` called with each signal of nestd's that comes while a call waits. Raises Refused.

        nestd is started if it does not run. Anybody may send us what looks like a signal of its: only what
        comes from the one who answers in its name now is heard.
        """
        ping = (NESTD, "/org/nestd1", f"{_BUS}.Peer", "Ping")
        self._nestd = self._exchange(ping, "", (), READ_LIMIT, None).header.sender
        rule = f"type='signal',sender='{NESTD}',path_namespace='/org/nestd1'"
        self.call("/org/freedesktop/DBus", _BUS, "AddMatch", "s", rule, destination=_BUS)
        self._hear = hear

    def open(self, path: str, interface: str, member: str) -> int:
        """Call a method that answers with one descriptor, which is the caller's to close. Raises Refused."""
        answer = self._exchange((NESTD, path, interface, member), "", (), CHANGE_LIMIT, None)
        if answer.header.signature != "h" or answer.header.unix_fds != 1:
            self._stream.drop(answer.header.unix_fds)
            raise Unreachable(f"nestd did not answer {member} with one descriptor")
        descriptors = self._stream.take(1)
        if not descriptors:
            raise Unreachable("the bus lost the descriptor that nestd sent")
        return descriptors[0]

    def _exchange(
        self,
        to: tuple[str, str, str, str],
        signature: str,
        values: Sequence[object],
        limit: float,
        waiting: Callable[[], None] | None,
    ) -> message.Message:
        """Make a call and wait for its answer; of what else comes only nestd's signals are heard."""
        deadline = time.monotonic() + limit
        self._serial += 1
        self._stream.send(message.call(self._serial, *to, signature, values, flags=self._flags), deadline)
        while True:
            try:
                found = self._stream.next(deadline, waiting)
            except Malformed as error:
                raise Unreachable(f"the bus brought what is no message: {error}") from None
            if self._answers(found.header, to[0]):
                break
            self._stream.drop(found.header.unix_fds)
            if self._hear and found.header.kind == Kind.SIGNAL and found.header.sender == self._nestd:
                self._hear(found.header, self._values(found))
        if found.header.kind == Kind.ERROR:
            self._stream.drop(found.header.unix_fds)
            text = self._values(found)[:1]
            raise Refused(found.header.error_name, text[0] if text and isinstance(text[0], str) else "")
        return found

    def _answers(self, header: Header, destination: str) -> bool:
        # The bus fills in the sender. It may answer for nestd (there is no such service); of others it
        # delivers no answer that nobody asked for.
        return (
            header.kind in (Kind.REPLY, Kind.ERROR)
            and header.reply_serial == self._serial
            and (header.sender == _BUS or (destination != _BUS and header.sender.startswith(":")))
        )

    @staticmethod
    def _values(answer: message.Message) -> list[Any]:
        try:
            return [_plain(value) for value in answer.values(_VALUES)]
        except Malformed as error:
            raise Unreachable(f"the answer is no proper message: {error}") from None


def _plain(value: Any) -> Any:
    """The value with the Variants in it unwrapped."""
    if isinstance(value, Variant):
        return _plain(value.value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value
