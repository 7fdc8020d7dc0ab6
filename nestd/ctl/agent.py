# SPDX-License-Identifier: LGPL-2.1-or-later
"""polkit's own password prompt on this terminal, for sessions that have no other (pkttyagent(1))."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager

_PROGRAM = "pkttyagent"
_READY_LIMIT = 10_000  # milliseconds until it has registered itself with polkit


@contextmanager
def password_agent(wanted: bool) -> Iterator[bool]:
    """Let polkit ask on this terminal while the context lasts; gives whether it can.

    pkttyagent answers for its parent, which is this process, and with --fallback only where the
    session has no agent of its own. Without a terminal, without pkttyagent, or for root, whom
    polkit never asks, nothing is started.
    """
    if not wanted or os.geteuid() == 0 or sys.stdin is None or not sys.stdin.isatty():
        yield False
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    agent = _start()
    try:
        yield agent is not None
    finally:
        if agent is not None:
            os.kill(agent, signal.SIGTERM)
            os.waitpid(agent, 0)
            # Ended in the middle of a password, it leaves the echo off.
            termios.tcsetattr(terminal, termios.TCSANOW, before)


def _start() -> int | None:
    """Its process id, or None where there is none to start."""
    ready, told = os.pipe()
    os.set_inheritable(told, True)
    try:
        agent = os.posix_spawnp(_PROGRAM, [_PROGRAM, f"--notify-fd={told}", "--fallback"], os.environ)
    except (FileNotFoundError, PermissionError):
        agent = None
    finally:
        os.close(told)
    try:
        if agent is not None:  # it closes the pipe when it is ready, or ends
            waiting = select.poll()
            waiting.register(ready, 0)
            waiting.poll(_READY_LIMIT)
    finally:
        os.close(ready)
    return agent
