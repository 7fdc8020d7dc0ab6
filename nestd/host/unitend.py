# SPDX-License-Identifier: LGPL-2.1-or-later
"""How a unit ended that systemd has forgotten since: systemd told the journal.

Source: systemd's sd-messages.h, systemd.journal-fields(7), journalctl(1). journald itself writes `_PID`, so
that nobody but systemd is believed.
"""

from __future__ import annotations

import re
from typing import Any

from nestd.errors import ToolFailed, ToolMissing
from nestd.host.commands import Commands

_LIMIT = 10.0  # seconds
# SD_MESSAGE_UNIT_SUCCESS, SD_MESSAGE_UNIT_FAILURE_RESULT, SD_MESSAGE_UNIT_PROCESS_EXIT. systemd says the last
# one only of a bad end, unless it is told to debug.
_SUCCESS = "7ad2d189f7e94e70a38c781354912448"
_FAILURE = "d9b373ed55a64feb8242e02dbe79a49c"
_EXIT = "98e322203f7a4ed290d09fe03c09fe15"
_FIELDS = "MESSAGE_ID,UNIT_RESULT,EXIT_STATUS"
_ASK = ("journalctl", "-q", "--no-pager", "-o", "json", f"--output-fields={_FIELDS}", "-n", "20", "_PID=1")
_MESSAGES = tuple(f"MESSAGE_ID={one}" for one in (_SUCCESS, _FAILURE, _EXIT))


async def told(commands: Commands, invocation: str) -> dict[str, Any]:
    """What is left of a unit's properties: Result, ExecMainStatus, ExecMainExitTimestamp (microseconds).

    `invocation` is the INVOCATION_ID of its run. Empty where the journal does not know of the end.
    """
    if not invocation:
        return {}
    try:
        done = await commands.run(*_ASK, *_MESSAGES, f"INVOCATION_ID={invocation}", limit=_LIMIT)
    except (ToolMissing, ToolFailed):
        return {}  # a system without a journal
    return read(done.out)


def read(text: str) -> dict[str, Any]:
    """The same, from journalctl's lines of JSON. What is none, or of another kind, is passed over."""
    import json  # noqa: PLC0415 -- only where there are guests

    found: dict[str, Any] = {}
    status = 0
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        match entry:
            case {"MESSAGE_ID": str() as kind, "__REALTIME_TIMESTAMP": str() as time} if _number(time):
                if kind == _EXIT and _number(entry.get("EXIT_STATUS")):
                    status = int(entry["EXIT_STATUS"])
                elif kind == _SUCCESS:
                    found = {"Result": "success", "ExecMainExitTimestamp": int(time)}
                elif kind == _FAILURE and _word(entry.get("UNIT_RESULT")):
                    found = {"Result": entry["UNIT_RESULT"], "ExecMainExitTimestamp": int(time)}
    return {**found, "ExecMainStatus": status} if found else {}


def _word(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[a-z-]+", value) is not None


def _number(value: object) -> bool:
    return isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 19
