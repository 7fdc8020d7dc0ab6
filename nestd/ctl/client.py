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

TYPE_CHECKING = False  # as typing has it, which costs time to load
if TYPE_CHECKING:
    from .bridge import Bridge

NESTD = "org.nestd1"
READ_LIMIT = 25.0  # seconds, as D-Bus libraries have it
LOGIN_LIMIT = 120.0  # seconds, as sshd waits for a password
CHANGE_LIMIT = 600.0  # seconds: somebody may have to find a password, and a guest to start
NO_LIMIT = float("inf")  # an initramfs that is made anew takes as long as it takes

_BUS = "org.freedesktop.DBus"
_VALUES = 1_000_000  # in one answer; nestd is trusted more than a stranger, but not without end


class Client:
    """A connection to a message bus, for calls to nestd.

    `bus` is `system`, `session`, a D-Bus address, or a process that leads to one; `interactive`: polkit may
    ask for a password. Every method raises Unreachable where the bus is not there or breaks off.
    """

    def __init__(self, bus: str | Bridge, environment: Mapping[str, str], *, interactive: bool) -> None:
        self._flags = Flag.ALLOW_INTERACTIVE_AUTHORIZATION if interactive else Flag(0)
        self._serial = 0
        self._nestd = ""
        self._hear: Callable[[Header, list[Any]], None] | None = None
        self._moved: Callable[[bool], None] | None = None
        limit = READ_LIMIT if isinstance(bus, str) else LOGIN_LIMIT
        self._stream = Stream(bus, environment, time.monotonic() + limit)
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

    def listen(
        self, hear: Callable[[Header, list[Any]], None], moved: Callable[[bool], None] | None = None
    ) -> None:
        """Have `hear` called with each signal of nestd's that comes while a call waits. Raises Refused.

        nestd is started if it does not run. Anybody may send us what looks like a signal of its: only what
        comes from the one who has its name now is heard. `moved` is told that it went, and that it, or
        another, came. Neither may make a call.
        """
        own = f"type='signal',sender='{_BUS}',member='NameOwnerChanged',arg0='{NESTD}'"
        for rule in (own, f"type='signal',sender='{NESTD}',path_namespace='/org/nestd1'"):
            self.call("/org/freedesktop/DBus", _BUS, "AddMatch", "s", rule, destination=_BUS)
        self._hear, self._moved = hear, moved
        # No Ping: systemd-stdio-bridge would answer that itself.
        anything = (NESTD, "/org/nestd1", f"{_BUS}.Properties", "Get")
        asked = (f"{NESTD}.Manager", "Version")
        self._nestd = self._exchange(anything, "ss", asked, READ_LIMIT, None).header.sender
        if moved:  # that it has gone is then news, and no reason to start it again
            self._flags |= Flag.NO_AUTO_START

    def wait(self, reader: int) -> None:
        """Wait for a message, and have it heard; BrokenPipeError where nobody reads the descriptor."""
        self._stream.serve(reader)
        self._overhear(self._next(float("inf"), None))

    def open(self, path: str, interface: str, member: str) -> int:
        """Call a method that answers with one descriptor, which is the caller's to close. Raises Refused."""
        if not self._stream.descriptors:
            raise Unreachable("no descriptor gets through to here. Run nestctl on the machine of the guest")
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
        while not self._answers((found := self._next(deadline, waiting)).header, to[0]):
            self._overhear(found)
        if found.header.kind == Kind.ERROR:
            self._stream.drop(found.header.unix_fds)
            text = self._values(found)[:1]
            raise Refused(found.header.error_name, text[0] if text and isinstance(text[0], str) else "")
        return found

    def _next(self, deadline: float, waiting: Callable[[], None] | None) -> message.Message:
        try:
            return self._stream.next(deadline, waiting)
        except Malformed as error:
            raise Unreachable(f"the bus brought what is no message: {error}") from None

    def _overhear(self, found: message.Message) -> None:
        """Take in what is no answer."""
        self._stream.drop(found.header.unix_fds)
        if not self._hear or found.header.kind != Kind.SIGNAL:
            return
        if found.header.sender == self._nestd:
            self._hear(found.header, self._values(found))
        elif (
            found.header.sender == _BUS and found.header.member == "NameOwnerChanged"
        ):  # only the bus has its name
            match self._values(found):
                case [str(name), str(), str(owner)] if name == NESTD and owner != self._nestd:
                    self._nestd = owner
                    if self._moved:
                        self._moved(bool(owner))

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
