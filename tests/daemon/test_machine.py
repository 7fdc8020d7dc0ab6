# SPDX-License-Identifier: LGPL-2.1-or-later
"""nestd as it is, with nothing faked, on the machine that runs the tests, whatever that is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.busctl import busctl_json
from tests.support.clients import MANAGER, NAME, PATH, Client, options
from tests.support.daemon import Daemon
from tests.support.privatebus import PrivateBus

pytestmark = pytest.mark.bus

VENDORS = {"vmx": "kvm_intel", "svm": "kvm_amd"}


def flag() -> str:
    """The extension in /proc/cpuinfo."""
    words = Path("/proc/cpuinfo").read_text().split()
    return next((name for name in VENDORS if name in words), "")


def driver_folders() -> list[str]:
    return sorted(path.name for path in Path("/sys/module").glob("kvm_*"))


@pytest.fixture
def here(bus: PrivateBus) -> Iterator[Client]:
    with Daemon(bus), Client(bus.address) as client:
        yield client


def test_it_starts_and_tells_the_truth(bus: PrivateBus, here: Client) -> None:
    told = here.get_all()
    assert told["Extension"] == flag()
    if flag():
        assert told["Driver"] == VENDORS[flag()]
        assert (told["DriverState"] in ("loaded", "builtin")) == (VENDORS[flag()] in driver_folders())
    elif driver_folders():
        # A driver that needs no extension, as kvm_pvm: built in where it has no initstate.
        name = driver_folders()[0]
        state = "loaded" if Path(f"/sys/module/{name}/initstate").exists() else "builtin"
        assert (told["Driver"], told["DriverState"]) == (name, state)
        assert (told["Nested"], told["Obstacle"]) == ("unsupported", "driver-without-nesting")
        assert (told["NestedAtBoot"], told["RebootRequired"]) == ("unsupported", False)
    else:
        assert (told["Driver"], told["Nested"]) == ("", "unsupported")
        assert told["Obstacle"] == "no-extension"
    assert busctl_json(bus.address, "get-property", NAME, PATH, MANAGER, "Nested") == told["Nested"]


def test_a_plan_or_a_reason(here: Client) -> None:
    """Enable as a dry run: on a machine that can, what would be done; on others, why not."""
    if here.get("Obstacle"):
        error = here.error("Enable", "a{sv}", [options(dry_run=True)])
        assert error.name == "org.nestd1.Error.NotSupported"
        assert error.text.startswith(here.get("Obstacle"))
        assert here.error("Enable", "a{sv}", [options(scope="runtime")]).name == error.name
    else:
        result = here.call("Enable", "a{sv}", [options(dry_run=True)])[0]
        assert result["changed"] is False
        assert result["nested"] == here.get("Nested")
