# SPDX-License-Identifier: LGPL-2.1-or-later
"""One fake nestd for all tests of a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ctl.running import Fake, fake_nestd


@pytest.fixture(scope="module")
def _fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fake]:
    with fake_nestd(tmp_path_factory.mktemp("fake")) as fake:
        yield fake


@pytest.fixture
def fake(_fake: Fake) -> Fake:
    """The fake, with no errors set and no calls remembered."""
    _fake.fail({})
    return _fake


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A folder with nothing in it."""
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder
