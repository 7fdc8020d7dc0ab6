# SPDX-License-Identifier: LGPL-2.1-or-later
"""The spine's main points once more on Debian 13: kernel 6.12, systemd 257, kmod 34, polkit 126."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm import image, package, sources
from tests.vm import test_spine as spine
from tests.vm.boot import boot
from tests.vm.machine import Machine
from tests.vm.progress import Progress


@pytest.fixture(scope="module")
def trixie(deb: Path, progress: Progress) -> Iterator[Machine]:
    """A machine with Debian 13 and nestd, which lives as long as this module's tests."""
    with boot(progress, built=image.ensure(progress, sources.TRIXIE)) as machine:
        progress(f"installing {deb.name} in Debian 13")
        package.install(machine, deb)
        machine.save(package.INSTALLED)
        yield machine


@pytest.fixture
def machine(trixie: Machine) -> Machine:
    """A machine in which nestd was just installed from its package, and runs."""
    trixie.load(package.INSTALLED)
    return trixie


def test_this_is_debian_13(machine: Machine) -> None:
    """What the other tests stand on, and what the numbers above claim."""
    assert machine.out("uname", "-r").startswith("6.12.")
    assert machine.out("systemctl", "--version").startswith("systemd 257")
    assert machine.out("modprobe", "--version").startswith("kmod version 34")
    assert machine.out("pkaction", "--version") == "pkaction version 126"
    assert machine.out("python3", "--version").startswith("Python 3.13.")
    assert machine.out("systemctl", "is-system-running") == "running"


def test_disable_and_enable_are_real(machine: Machine) -> None:
    spine.test_disable_and_enable_are_real(machine)


def test_it_holds_after_a_reboot(machine: Machine) -> None:
    spine.test_it_holds_after_a_reboot(machine)


def test_without_authorization_nothing_changes(machine: Machine) -> None:
    spine.test_without_authorization_nothing_changes(machine, "no")


def test_a_guest_gets_the_extension(machine: Machine) -> None:
    spine.test_a_guest_gets_the_extension(machine, "host")
