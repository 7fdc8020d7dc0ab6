# SPDX-License-Identifier: LGPL-2.1-or-later
"""A pytest plugin: a skip or an expected failure whose reason is not allowed fails the session.

The list is one line each, `PATTERN | why it may be`: a regular expression that the whole reason of
the skip matches, and the explanation for people. Lines that begin with `#` are comments.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest


class AllowedSkips:
    """Collects the reasons of what did not run and judges them at the end."""

    def __init__(self, allowed: Path) -> None:
        self._patterns = [re.compile(line.rpartition(" | ")[0]) for line in _lines(allowed)]
        self.refused: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Skips, and expected failures whichever way they went."""
        expected = getattr(report, "wasxfail", None)
        if expected is not None:
            self._judge(report.nodeid, f"xfail: {expected}")
        elif report.skipped:
            self._judge(report.nodeid, _reason(report.longrepr))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Whole modules that skip themselves."""
        if report.skipped:
            self._judge(report.nodeid, _reason(report.longrepr))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Turn a success that left something out into a failure."""
        if self.refused and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say which, and where it would be allowed."""
        if self.refused:
            terminalreporter.section("skips that tests/allowed-skips.txt does not allow")
            for line in self.refused:
                terminalreporter.line(line, red=True)

    def _judge(self, where: str, reason: str) -> None:
        if not any(pattern.fullmatch(reason) for pattern in self._patterns):
            self.refused.append(f"{where}: {reason}")


def _lines(allowed: Path) -> list[str]:
    lines = [line.strip() for line in allowed.read_text().splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    for line in lines:
        if " | " not in line:
            raise pytest.UsageError(f"{allowed}: no ` | ` and no explanation in the line {line!r}")
    return lines


def _reason(longrepr: object) -> str:
    # For a skip pytest gives (path, line, "Skipped: reason").
    text = str(longrepr[2]) if isinstance(longrepr, tuple) else str(longrepr)
    return text.removeprefix("Skipped: ")
