# SPDX-License-Identifier: LGPL-2.1-or-later
"""Why a unit ended, in its program's own words where they can be had."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nestd.errors import ToolFailed, ToolMissing
from nestd.host.commands import Commands
from nestd.host.units import OVER, invocation

_LINES = "20"
_KEPT = 2000  # characters of the end: the last line is the reason
_LIMIT = 10.0
# The process is gone, but the journal may not have read all it wrote: --sync.
_SYNC = ("journalctl", "--sync")
# What came through the unit's stdout and stderr, not what systemd's own child logged before it was the
# program.
_READ = ("journalctl", "-q", "--no-pager", "-o", "cat", "-n", _LINES, "_TRANSPORT=stdout")
# What systemd's child exits with when it could not get as far as the program (systemd.exec(5)).
_SYSTEMD_STATUS = range(200, 256)


async def last_words(commands: Commands, known: Mapping[str, Any]) -> str:
    """Why the unit ended whose properties are `known`: its last lines, or at least the way it ended."""
    await sync(commands)
    return await said(commands, invocation(known)) or way_out(known)


async def sync(commands: Commands) -> None:
    """Have the journal read all that was written to it."""
    try:
        await commands.run(*_SYNC, limit=_LIMIT)
    except (ToolMissing, ToolFailed):
        return  # `said` finds out what can be had


async def said(commands: Commands, run: str) -> str:
    """The last lines, 20 at most, of the unit's `run` (its INVOCATION_ID); empty if there are none."""
    if not run:
        return ""
    try:
        done = await commands.run(*_READ, f"_SYSTEMD_INVOCATION_ID={run}", limit=_LIMIT)
    except (ToolMissing, ToolFailed):
        return ""  # a system without a journal
    return harmless(done.out)


def way_out(known: Mapping[str, Any]) -> str:
    """How the unit ended, from its Result and exit status."""
    result, status = known.get("Result", ""), known.get("ExecMainStatus", 0)
    how = f"its unit ended with the result {result!r}"
    match result:
        case _ if known.get("ActiveState", "inactive") not in OVER:
            how = "it has not ended yet"
        case "exit-code" if status in _SYSTEMD_STATUS:
            how = f"systemd could not start it (exit status {status}, see systemd.exec(5))"
        case "exit-code" if not status:  # it is the main process's, which was never reached
            how = "what prepares its files failed and said nothing"
        case "exit-code" | "success":
            how = f"it ended with exit status {status}"
        case "signal" | "core-dump":
            how = f"it was ended by signal {status}"
        case "oom-kill":
            how = "it used more memory than its unit may and was killed"
    return how


def harmless(text: str) -> str:
    """Lines of what is printable alone, the end of them, to be shown to somebody."""
    lines = ("".join(one for one in line if one.isprintable()).strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line)[-_KEPT:]
