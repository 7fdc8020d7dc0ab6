# SPDX-License-Identifier: LGPL-2.1-or-later
"""A unit's end, as systemd has told it to the journal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nestd.host import unitend
from nestd.host.commands import Commands
from tests.support import loop

# As journalctl of systemd 252 writes them, less its cursors: a unit that ended well, and one that was killed.
SUCCESS = {"MESSAGE_ID": "7ad2d189f7e94e70a38c781354912448", "__REALTIME_TIMESTAMP": "1700000000000001"}
EXIT = {
    "MESSAGE_ID": "98e322203f7a4ed290d09fe03c09fe15",
    "__REALTIME_TIMESTAMP": "1700000000000002",
    "EXIT_STATUS": "9",
}
FAILURE = {
    "MESSAGE_ID": "d9b373ed55a64feb8242e02dbe79a49c",
    "__REALTIME_TIMESTAMP": "1700000000000003",
    "UNIT_RESULT": "signal",
}


def _known(result: str, status: int, time: int) -> dict[str, Any]:
    return {"Result": result, "ExecMainStatus": status, "ExecMainExitTimestamp": time}


@pytest.mark.parametrize(
    ("entries", "known"),
    [
        ([SUCCESS], _known("success", 0, 1700000000000001)),
        ([EXIT, FAILURE], _known("signal", 9, 1700000000000003)),
        ([EXIT], {}),  # the end is not there yet
        ([{**SUCCESS, "__REALTIME_TIMESTAMP": "soon"}], {}),
        ([{**SUCCESS, "MESSAGE_ID": [1, 2]}, 7, None, []], {}),
        ([{**FAILURE, "UNIT_RESULT": "\x1b\ud800"}], {}),
        ([{**EXIT, "EXIT_STATUS": [57]}, FAILURE], _known("signal", 0, 1700000000000003)),
    ],
)
def test_what_systemd_tells(entries: list[Any], known: dict[str, Any]) -> None:
    text = "".join(f"{json.dumps(entry)}\n" for entry in entries)
    assert unitend.read(f"no json\n{text}{'[' * 100_000}\n") == known


def _told(folder: Path, invocation: str) -> dict[str, Any]:
    return loop.run(unitend.told(Commands(f"{folder}:/usr/bin:/bin"), invocation))


def test_the_journal_is_asked_for_what_systemd_says_of_one_run(tmp_path: Path) -> None:
    program = tmp_path / "journalctl"
    program.write_text(f"#!/bin/sh\necho \"$@\" >{tmp_path}/asked\necho '{json.dumps(SUCCESS)}'\n")
    program.chmod(0o755)
    assert _told(tmp_path, "") == {} and not (tmp_path / "asked").exists()
    assert _told(tmp_path, "abcd")["Result"] == "success"
    asked = (tmp_path / "asked").read_text().split()
    assert asked[-1] == "INVOCATION_ID=abcd" and "_PID=1" in asked


def test_without_a_journal_nothing_is_known(tmp_path: Path) -> None:
    assert loop.run(unitend.told(Commands(str(tmp_path)), "abcd")) == {}
