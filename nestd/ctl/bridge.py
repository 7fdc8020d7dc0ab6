# SPDX-License-Identifier: LGPL-2.1-or-later
"""A process that leads to a bus: its standard input and output are the bus's socket (sd-bus's unixexec:)."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
from collections.abc import Mapping
from typing import Protocol

from .failures import Unreachable

_PATIENCE = 2000  # milliseconds: a process that has lost its connection says why it ended sooner than that


class Way(Protocol):
    """Where the process leads, and what its end means (elsewhere.py)."""

    @property
    def text(self) -> str: ...
    @property
    def argv(self) -> tuple[str, ...]: ...
    def why(self, status: int | None) -> str: ...


class Bridge:
    """The running process, and our end of its `socket`, which is whose creator's to close before `close`.

    It keeps our standard error, and asks for a password on our terminal. Raises Unreachable where it
    cannot be started.
    """

    def __init__(self, way: Way, environment: Mapping[str, str]) -> None:
        self._way = way
        self._status: int | None = None
        # Who started us may have it ignored, and then a child leaves no status.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self.socket, theirs = socket.socketpair()
        actions: list[tuple[int, int, int] | tuple[int, int, str, int, int]]
        actions = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), to) for to in (0, 1)]
        if sys.stderr is None:  # the number is free: what it says there would be said to us
            actions.append((os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0))
        try:
            self._pid = os.posix_spawnp(
                way.argv[0],
                way.argv,
                environment,
                file_actions=actions,
                setsigdef=[signal.SIGPIPE],  # Python ignores it, and the child would, too
            )
        except OSError as error:
            self.socket.close()
            raise Unreachable(
                f"cannot run {way.argv[0]}: {error.strerror}. Without it there is no way to {way.text}"
            ) from None
        finally:
            theirs.close()
        self.socket.setblocking(False)

    @property
    def place(self) -> str:
        """The bus it leads to, in words."""
        return f"the system bus of {self._way.text}"

    def why(self) -> str:
        """Why the connection has ended."""
        self._wait(_PATIENCE)
        return self._way.why(self._status)

    def close(self) -> None:
        """See to its end: it has read the end of its input, and is asked by signals if that does not help."""
        for ask in (signal.SIGTERM, signal.SIGKILL):
            if self._wait(_PATIENCE):
                return
            os.kill(self._pid, ask)
        self._wait(None)

    def _wait(self, milliseconds: int | None) -> bool:
        """Whether it has ended in that time."""
        if self._status is None:
            ended = os.pidfd_open(self._pid)
            try:
                poll = select.poll()
                poll.register(ended, select.POLLIN)
                if not poll.poll(milliseconds):
                    return False
            finally:
                os.close(ended)
            self._status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return True
