# SPDX-License-Identifier: LGPL-2.1-or-later
"""Why a unit ended, in its program's own words where they can be had."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from nestd.errors import ToolFailed, ToolMissing
from nestd.host.commands import Commands

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
    words = ""
    invocation = bytes(known.get("InvocationID", b"")).hex()
    if invocation:
        try:
            await commands.run(*_SYNC, limit=_LIMIT)
            done = await commands.run(*_READ, f"_SYSTEMD_INVOCATION_ID={invocation}", limit=_LIMIT)
            words = harmless(done.out)
        except (ToolMissing, ToolFailed):
            words = ""  # a system without a journal: the way it ended is all there is
    return words or way_out(known)


def way_out(known: Mapping[str, Any]) -> str:
    """How the unit ended, from its Result and exit status."""
    result, status = known.get("Result", ""), known.get("ExecMainStatus", 0)
    match result:
        case "exit-code" if status in _SYSTEMD_STATUS:
            return f"systemd could not start it (exit status {status}, see systemd.exec(5))"
        case "exit-code" | "success":
            return f"it ended with exit status {status}"
        case "signal" | "core-dump":
            return f"it was ended by signal {status}"
        case "oom-kill":
            return "it used more memory than its unit may and was killed"
    return f"its unit ended with the result {result!r}"


def harmless(text: str) -> str:
    """Lines without control characters, the end of them, to be shown to somebody."""
    lines = (
        re.sub(r"[^\x20-\x7e\xa0-\ud7ff\ue000-\U0010ffff]", "", line).strip() for line in text.splitlines()
    )
    return "\n".join(line for line in lines if line)[-_KEPT:]
