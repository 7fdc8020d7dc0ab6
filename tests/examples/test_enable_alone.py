# SPDX-License-Identifier: LGPL-2.1-or-later
"""The examples where there is no nestd on the bus."""

from __future__ import annotations

import pytest

from tests.examples.conftest import Run

pytestmark = pytest.mark.bus


def test_enable_says_what_to_do(run: Run) -> None:
    done = run("enable.py")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("org.freedesktop.DBus.Error.ServiceUnknown: ")
    assert "systemctl status nestd" in done.stderr
