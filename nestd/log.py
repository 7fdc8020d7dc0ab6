# SPDX-License-Identifier: LGPL-2.1-or-later
"""The journal: the one module that logs.

It speaks the journal's own protocol (https://systemd.io/JOURNAL_NATIVE_PROTOCOL/), one datagram a
line, so that neither systemd's Python module nor `logging` is loaded for it. Without a journal
the line goes to stderr, with its priority in front as sd-daemon(3) has it.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress

# Message ids (systemd.journal-fields(7)): they name a kind of event for ever.
CHANGED = "49a6a9171f74441c93960b8f6384fb24"
CHANGE_FAILED = "20dc00aab2744727b97d2e1180fe7041"
ROLLBACK_FAILED = "659f6149c26c4d6e84c6fe6e841767eb"
HEALED = "7fcdce53061d42e6a8eb5f838bf919d3"
GUEST_STARTED = "eb0a9b640f1f49b2af89eccda603e98f"
GUEST_EXITED = "904a7662674b4cbeb405e8f5a6a2693b"
DENIED = "9b112e4094904a7a8fc6874dd1cc9731"
HANDLER_FAILED = "e0aa840af86d4fa29fc2bc59260f571b"
PENDING = "f5154fcb9b534797ae3ccfe5adc8a7ff"
PENDING_DONE = "7c0a9b1a59c24d0f8a31f7d2f7b1f4d6"
PENDING_FAILED = "a94c3b1d007348988afdca08ead970ff"
PENDING_CANCELLED = "19624fe9086048799869f41c865a8786"
DRIFT = "1fa29f222c364214b60f3c07ba53243b"
DRIFT_PUT_BACK = "ee3f97abdf9845b7b1a501e07134e3ff"
DRIFT_GIVEN_UP = "d7a646aa9d5745dcb64c67598151e424"

_SOCKET = "/run/systemd/journal/socket"
_ERROR, _WARNING, _INFO = 3, 4, 6
# Characters of one value: a datagram has to hold all of them, and a caller may have chosen some.
_LONGEST = 16 << 10


def clean(text: str) -> str:
    """`text` on one line: what is not printable is written as Python escapes it; cut at 16 Ki characters."""
    cut = text[:_LONGEST]
    if cut.isprintable():
        return cut
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in cut)


class Journal:
    """Where lines go: the journal's socket, or the descriptor `stderr` where there is none."""

    def __init__(self, path: str = _SOCKET, stderr: int = 2) -> None:
        self._path = path
        self._stderr = stderr

    def write(self, priority: int, text: str, message_id: str = "", **fields: object) -> None:
        """One line of `priority` (syslog(3)). Field names become upper case after `NESTD_`. No OSError."""
        told = {f"NESTD_{name.upper()}": clean(str(value)) for name, value in fields.items()}
        if message_id:
            told["MESSAGE_ID"] = message_id
        if not self._send({"MESSAGE": clean(text), "PRIORITY": str(priority), **told}):
            self._print(priority, text, told)

    def _send(self, fields: dict[str, str]) -> bool:
        fields["SYSLOG_IDENTIFIER"] = "nestd"
        datagram = "".join(f"{name}={value}\n" for name, value in fields.items()).encode()
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
                # A journal that hangs must not hang the daemon.
                journal.setblocking(False)
                journal.sendto(datagram, self._path)
        except OSError:
            return False
        return True

    def _print(self, priority: int, text: str, fields: dict[str, str]) -> None:
        more = "".join(f" {name}={value}" for name, value in fields.items())
        # There is no third place to say that it cannot be said.
        with suppress(OSError):
            os.write(self._stderr, f"<{priority}>{clean(text)}{more}\n".encode())


def info(text: str, *, message_id: str = "", **fields: object) -> None:
    """What happened, for whoever asks later."""
    Journal().write(_INFO, text, message_id, **fields)


def warning(text: str, *, message_id: str = "", **fields: object) -> None:
    """What somebody should look at; the daemon goes on as before."""
    Journal().write(_WARNING, text, message_id, **fields)


def error(text: str, *, message_id: str = "", **fields: object) -> None:
    """What failed."""
    Journal().write(_ERROR, text, message_id, **fields)


def exception(text: str, *, message_id: str = "", **fields: object) -> None:
    """What failed, with the traceback of the exception being handled in the field NESTD_TRACEBACK."""
    import traceback  # noqa: PLC0415 -- start-up does not need it

    Journal().write(_ERROR, text, message_id, traceback=traceback.format_exc(), **fields)


class Limiter:
    """Lines that callers can cause: at most `count` of them in `period` seconds of `clock`.

    The first that is held back is announced; how many they were is said before the next that passes.
    """

    def __init__(
        self, count: int = 10, period: float = 30.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._count = count
        self._period = period
        self._clock = clock
        self._since = clock()
        self._passed = 0
        self.held = 0

    def passes(self, say: Callable[[str], None] = warning) -> bool:
        """Whether the line may be written; `say` writes the limiter's own."""
        if self._clock() - self._since >= self._period:
            if self.held:
                say(f"{self.held} lines like the next were held back")
            self._since = self._clock()
            self._passed = self.held = 0
        if self._passed < self._count:
            self._passed += 1
            return True
        if not self.held:
            say(f"more than {self._count} lines like the last in {self._period:g} s: holding the rest back")
        self.held += 1
        return False
