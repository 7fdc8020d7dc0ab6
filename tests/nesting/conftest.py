# SPDX-License-Identifier: LGPL-2.1-or-later
"""What several tests of this room need."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_SHM = "/dev/shm"


@pytest.fixture
def top(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where fsync costs nothing: these tests call it many thousand times."""
    with tempfile.TemporaryDirectory(dir=_SHM if os.path.ismount(_SHM) else tmp_path) as folder:
        yield Path(folder)
