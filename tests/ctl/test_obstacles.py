# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every obstacle of the model has its sentence, and no other."""

from __future__ import annotations

from nestd.ctl.obstacles import OBSTACLES, UNKNOWN, explain
from nestd.model import Obstacle


def test_every_code_is_explained() -> None:
    assert set(OBSTACLES) == {str(code) for code in Obstacle} - {""}


def test_clauses_fit_their_places() -> None:
    for meaning, remedy in [*OBSTACLES.values(), UNKNOWN]:
        assert meaning and remedy
        assert not meaning.endswith(".") and not remedy.endswith(".")


def test_an_unknown_code() -> None:
    assert explain("from-the-future") == UNKNOWN
