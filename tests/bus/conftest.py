# SPDX-License-Identifier: LGPL-2.1-or-later
"""A private bus for each test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.bus.service import POLICY
from tests.support.privatebus import Kind, PrivateBus


@pytest.fixture
def bus() -> Iterator[PrivateBus]:
    """A dbus-daemon on which everybody may own org.nestd1 and call it."""
    with PrivateBus(policy=POLICY) as bus:
        yield bus


@pytest.fixture(params=list(Kind))
def each_bus(request: pytest.FixtureRequest) -> Iterator[PrivateBus]:
    """The same, once as dbus-daemon and once as dbus-broker."""
    with PrivateBus(policy=POLICY, kind=request.param) as bus:
        yield bus
