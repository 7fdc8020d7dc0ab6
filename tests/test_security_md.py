# SPDX-License-Identifier: LGPL-2.1-or-later
"""SECURITY.md promises nothing that no test holds: every test that it names is there."""

from __future__ import annotations

import re
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
TEXT = (TOP / "SECURITY.md").read_text()
NAMED = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", TEXT)


def test_every_test_that_is_named_is_there() -> None:
    assert NAMED
    missing = [
        f"{file}::{test}"
        for file, test in NAMED
        if not (TOP / file).is_file() or f"def {test}(" not in (TOP / file).read_text() + "def ("
    ]
    assert not missing


def test_every_promise_names_a_test() -> None:
    promises = TEXT.partition("\n## Promises\n")[2].partition("\n## ")[0]
    rows = [line for line in promises.splitlines() if re.match(r"\| (?!promise)", line)]
    assert len(rows) > 30
    assert [row for row in rows if "`tests/" not in row] == []
