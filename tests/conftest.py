# SPDX-License-Identifier: LGPL-2.1-or-later
"""The house rules for every test: nothing is left behind, and nothing is skipped unnoticed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import leaks
from tests.support.skips import AllowedSkips


def pytest_configure(config: pytest.Config) -> None:
    """Register what judges the skips."""
    allowed = Path(__file__).with_name("allowed-skips.txt")
    config.pluginmanager.register(AllowedSkips(allowed), "allowed-skips")


@pytest.fixture(scope="session")
def watched_loops() -> Iterator[leaks.WatchedPolicy]:
    """Event loops that tell which tasks were left when `asyncio.run` ended."""
    leaks.adopt_orphans()
    policy = leaks.WatchedPolicy()
    asyncio.set_event_loop_policy(policy)
    yield policy
    asyncio.set_event_loop_policy(None)


@pytest.fixture(autouse=True)
def nothing_left_behind(watched_loops: leaks.WatchedPolicy) -> Iterator[None]:
    """Fail a test that leaves a task, a process, an open descriptor or a thread behind.

    What fixtures of a wider scope opened before the test belongs to them, not to it.
    """
    before = leaks.census()
    yield
    left = [*watched_loops.left, *leaks.left_behind(before)]
    watched_loops.left.clear()
    leaks.end_processes(before)
    if left:
        pytest.fail("left behind: " + "; ".join(left), pytrace=False)
