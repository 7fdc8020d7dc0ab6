# SPDX-License-Identifier: LGPL-2.1-or-later
"""Other services on the bus, as those who use them see it: calls, signals, values, names of objects."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from nestd.wire.library import Variant

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")


class Signal(Protocol):
    """A signal that matched a rule; `sender` is a unique name, `body` as the wire library gives it."""

    @property
    def path(self) -> str: ...
    @property
    def interface(self) -> str: ...
    @property
    def member(self) -> str: ...
    @property
    def body(self) -> Sequence[Any]: ...
    @property
    def sender(self) -> str: ...


class Caller(Protocol):
    """The message bus, as bus/connection.py gives it: what is asked of others."""

    async def call(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        body: Sequence[object] = (),
        *,
        limit: float = 25.0,
        interactive: bool = False,
        fds: Sequence[int] = (),
    ) -> list[Any]:
        """Call and return the body of the answer; `limit` in seconds. Raises CallFailed.

        A value of the type h is a place in `fds`, which stay the caller's.
        """


class Bus(Caller, Protocol):
    """The same, and what others tell."""

    async def subscribe(self, rule: str, handler: Callable[[Signal], None]) -> Callable[[], Awaitable[None]]:
        """Have `handler` called for what matches `rule`, until the returned function is awaited."""


def bus_label_escape(label: str) -> str:
    """A label of an object path, as systemd escapes it (sd_bus_path_encode(3)): `a-1` is `a_2d1`."""
    escaped = "".join(
        chr(byte) if byte in _PLAIN and (at > 0 or not chr(byte).isdigit()) else f"_{byte:02x}"
        for at, byte in enumerate(label.encode())
    )
    return escaped or "_"


def plain(value: Any) -> Any:
    """A value of the bus without its variants, at any depth."""
    if isinstance(value, Variant):
        return plain(value.value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value
