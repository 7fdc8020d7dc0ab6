# SPDX-License-Identifier: LGPL-2.1-or-later
"""What stands in the way of a new lab."""

from __future__ import annotations

from pathlib import Path

import pytest

from nestd.errors import LabExists, LimitsExceeded
from nestd.guests import lablimits, labstore
from nestd.guests.lab import new
from nestd.host.root import Root


def test_so_many_and_no_more_for_each_user(tmp_path: Path) -> None:
    root = Root(str(tmp_path))
    lablimits.check(root, "town", 7, [7] * lablimits.MOST + [8] * lablimits.MOST)
    with pytest.raises(LimitsExceeded, match="at most 32 labs: remove one"):
        lablimits.check(root, "town", 7, [7] * (lablimits.MOST + 1))


def test_a_name_that_is_kept_is_nobody_elses(tmp_path: Path) -> None:
    root = Root(str(tmp_path))
    labstore.save(root, new("town", 7, "guestling", {}))
    with pytest.raises(LabExists, match=r"remove /var/lib/nestd/labs/town\.json"):
        lablimits.check(root, "town", 7, [7])
    lablimits.check(root, "city", 7, [7])
