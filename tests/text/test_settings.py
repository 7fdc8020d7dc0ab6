# SPDX-License-Identifier: LGPL-2.1-or-later
"""nestd.conf: what counts, and what is complained about."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestd.text import settings

FILE = "none or the absolute path of a file"
SHOWN = f"{FILE} whose name is not hidden"


def parsed(text: str) -> tuple[dict[str, str], list[tuple[int, str]]]:
    complaints: list[tuple[int, str]] = []
    found = settings.parse(text, lambda line, why: complaints.append((line, why)))
    return found, complaints


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ("# a comment\n; another\n\n  \n", {}),
        ("[Nesting]\nEnforce=when-idle\n", {"Enforce": "when-idle"}),
        ("  [Nesting]\r\n\tEnforce = no  \r\n", {"Enforce": "no"}),
        ("[Nesting]\nEnforce=no\n[Nesting]\nEnforce=when-idle", {"Enforce": "when-idle"}),
        (
            "[Export]\nPrometheusTextfile=/a/b c.prom\nNodeFeatureFile=/d\n",
            {"PrometheusTextfile": "/a/b c.prom", "NodeFeatureFile": "/d"},
        ),
        ("[Export]\nPrometheusTextfile=none\n", {"PrometheusTextfile": "none"}),
    ],
)
def test_what_counts(text: str, found: dict[str, str]) -> None:
    assert parsed(text) == (found, [])


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("[Nesting]\n\nEnforce=always\n", 3, "Enforce= takes no or when-idle, not 'always'"),
        ("[Nesting]\nEnforce=\n", 2, "Enforce= takes no or when-idle, not ''"),
        ("[Nesting]\nenforce=no\n", 2, "there is no enforce= in [Nesting]; there is Enforce"),
        ("[Boot]\nEnforce=no\n", 2, "there is no Enforce= in [Boot]; there is Loader"),
        (
            "[Boot]\nLoader=GRUB\n",
            *(2, "Loader= takes auto, grub, grubby, kernel-install, rpm-ostree, ostree or bootc, not 'GRUB'"),
        ),
        ("[Nesting]\nEnforce\n", 2, "'Enforce' is neither a section nor KEY=VALUE"),
        ("[nesting]\nEnforce=when-idle\n", 1, "there is no section [nesting], so nothing in it counts"),
        ("Enforce=when-idle\n", 1, "Enforce= stands before the first section"),
        ("[Export]\nNodeFeatureFile=nestd\n", 2, f"NodeFeatureFile= takes {FILE}, not 'nestd'"),
        ("[Export]\nNodeFeatureFile=/\n", 2, f"NodeFeatureFile= takes {FILE}, not '/'"),
        ("[Export]\nNodeFeatureFile=/a/../b\n", 2, f"NodeFeatureFile= takes {FILE}, not '/a/../b'"),
        ("[Export]\nNodeFeatureFile=/a/\0\n", 2, f"NodeFeatureFile= takes {FILE}, not '/a/\\x00'"),
        ("[Export]\nNodeFeatureFile=\n", 2, f"NodeFeatureFile= takes {FILE}, not ''"),
        ("[Export]\nNodeFeatureFile=FILE\n", 2, f"NodeFeatureFile= takes {FILE}, not 'FILE'"),
        ("[Export]\nNodeFeatureFile=/a/.b\n", 2, f"NodeFeatureFile= takes {SHOWN}, not '/a/.b'"),
        (
            "[Export]\nPrometheusTextfile=/a/b.txt\n",
            *(2, f"PrometheusTextfile= takes {SHOWN} and ends with .prom, not '/a/b.txt'"),
        ),
        ("[Nesting\nEnforce=no\n", 1, "'[Nesting' is neither a section nor KEY=VALUE"),
    ],
)
def test_what_is_complained_about(text: str, line: int, why: str) -> None:
    found, complaints = parsed(text)
    assert complaints[0] == (line, why)
    assert found == {}


def test_nothing_said() -> None:
    nothing = {"Enforce": "no", "Loader": "auto", "PrometheusTextfile": "none", "NodeFeatureFile": "none"}
    assert settings.defaults() == nothing


@given(st.text())
def test_any_text(text: str) -> None:
    found, complaints = parsed(text)
    assert set(found) <= set(settings.defaults())
    assert all(0 < line <= len(text.split("\n")) for line, _ in complaints)
