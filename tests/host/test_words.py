# SPDX-License-Identifier: LGPL-2.1-or-later
"""QEMU's last words, where they are looked for and how they are cleaned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nestd.host import words
from nestd.host.commands import Commands
from tests.support import loop

FAILED = {"Result": "exit-code", "ExecMainStatus": 1, "InvocationID": b"\xab\xcd"}


def _last_words(folder: Path, known: dict[str, Any]) -> str:
    return loop.run(words.last_words(Commands(f"{folder}:/usr/bin:/bin"), known))


def _journalctl(folder: Path, script: str) -> Path:
    (folder / "journalctl").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "journalctl").chmod(0o755)
    return folder


def test_the_journal_is_synced_and_asked_for_the_invocation(tmp_path: Path) -> None:
    _journalctl(tmp_path, f'echo "$@" >>{tmp_path}/asked; [ "$1" = --sync ] || echo "qemu: it broke"')
    assert _last_words(tmp_path, FAILED) == "qemu: it broke"
    sync, asked = (tmp_path / "asked").read_text().splitlines()
    assert sync == "--sync"
    assert "_TRANSPORT=stdout _SYSTEMD_INVOCATION_ID=abcd" in asked


@pytest.mark.parametrize("script", ["exit 1", "exec true", "printf '\\033\\n\\a'"])
def test_a_journal_that_says_nothing(tmp_path: Path, script: str) -> None:
    assert _last_words(_journalctl(tmp_path, script), FAILED) == "it ended with exit status 1"


def test_no_journal_and_no_invocation(tmp_path: Path) -> None:
    alone = loop.run(words.last_words(Commands(str(tmp_path)), FAILED))
    assert alone == "it ended with exit status 1"
    assert _last_words(_journalctl(tmp_path, "echo never"), {**FAILED, "InvocationID": []}) == alone


@pytest.mark.parametrize(
    ("result", "status", "said"),
    [
        ("success", 0, "it ended with exit status 0"),
        ("exit-code", 226, r"systemd could not start it (exit status 226, see systemd.exec(5))"),
        ("signal", 11, "it was ended by signal 11"),
        ("core-dump", 6, "it was ended by signal 6"),
        ("oom-kill", 9, "it used more memory than its unit may and was killed"),
        ("exit-code", 0, "what prepares its files failed and said nothing"),
        ("resources", 0, "its unit ended with the result 'resources'"),
    ],
)
def test_the_way_out(result: str, status: int, said: str) -> None:
    assert words.way_out({"Result": result, "ExecMainStatus": status}) == said


def test_what_has_not_ended_has_no_way_out() -> None:
    for state in ("active", "activating", "deactivating"):
        known = {"ActiveState": state, "Result": "success", "ExecMainStatus": 0}
        assert words.way_out(known) == "it has not ended yet"
    assert words.way_out({**FAILED, "ActiveState": "failed"}) == "it ended with exit status 1"


def test_words_are_made_harmless() -> None:
    assert words.harmless("a\x1b[0m\r\n\n\0\n é \udcff\u009b\n") == "a[0m\né"
    assert words.harmless("x" * 5000) == "x" * 2000
