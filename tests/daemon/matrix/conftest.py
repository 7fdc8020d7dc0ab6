# SPDX-License-Identifier: LGPL-2.1-or-later
"""One machine for each module; its guests come and go between the tests, so leaks are counted at its end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.daemon.matrix.town import Town
from tests.support import leaks


@pytest.fixture(scope="module", autouse=True)
def nothing_left_behind(watched_loops: leaks.WatchedPolicy) -> Iterator[None]:
    """As the house has it (tests/conftest.py), but for the module as a whole."""
    before = leaks.census()
    yield
    left = [*watched_loops.left, *leaks.left_behind(before)]
    watched_loops.left.clear()
    leaks.end_processes(before)
    assert not left


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    """The machine."""
    with Town() as town:
        yield town
