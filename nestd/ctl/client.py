# SPDX-License-Identifier: LGPL-2.1-or-later
"""A blocking client of nestd on the bus: one connection, one call at a time, no event loop."""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from .failures import Refused, Unreachable

NESTD = "org.nestd1"
READ_LIMIT = 25.0  # seconds, as every D-Bus library has it
CHANGE_LIMIT = 600.0  # seconds: a person may have to find a password, and a guest to start

_BUS = "org.freedesktop.DBus"
_TICK = 0.1  # seconds between two calls of `waiting`


class Client:
    """A connection to a message bus, for calls to nestd.

    `bus` is `system`, `session` or a D-Bus address. `interactive`: polkit may ask for a password.
    Raises Unreachable where the bus is not there or does not let us in.
    """

    def __init__(self, bus: str, environment: Mapping[str, str], *, interactive: bool) -> None:
        self._name = bus
        self._interactive = interactive
        self._serial = 0
        self._buffer = b""
        self._descriptors: list[int] = []
        self._socket = ...

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
