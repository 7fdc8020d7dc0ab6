# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fixtures: one QEMU for the whole run, put back to a snapshot before each test."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.vm import console, package
from tests.vm.boot import BASE, boot
from tests.vm.machine import Machine
from tests.vm.problem import VmError
from tests.vm.progress import Progress, to_stream

_HERE = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "vm: needs the emulated machine (minutes)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.vm)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, None]:
    """Put the machine's own words beside a failure."""
    outcome = yield
    report = outcome.get_result()
    arguments: dict[str, object] = getattr(item, "funcargs", {})
    machine = arguments.get("machine") or arguments.get("bare")
    if call.when == "call" and report.failed and isinstance(machine, Machine):
        report.sections.append(("the machine", _last_words(machine)))


def _last_words(machine: Machine) -> str:
    try:
        journal = machine.run(
            ["journalctl", "--no-pager", "--lines=40", "--output=short-precise"], check=False
        )
        return f"{journal.stdout}\n{console.tail(machine.log)}"
    except VmError as error:
        return str(error)


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    """Stand in for the house's fixture of this name: here a test may leave another QEMU than it found.

    power_cut and restart replace the process, its threads and wires; they belong to the session's machine.
    """


@pytest.fixture(scope="session")
def progress(pytestconfig: pytest.Config) -> Progress:
    """Tell the person at the terminal, whatever pytest captures."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    say = to_stream(sys.__stderr__)

    def tell(phase: str) -> None:
        with capture.global_and_fixture_disabled():
            say(phase)

    return tell


@pytest.fixture(scope="session")
def booted(progress: Progress) -> Iterator[Machine]:
    """The session's machine, in whatever state the last test left it."""
    with boot(progress) as machine:
        yield machine


@pytest.fixture
def bare(booted: Machine) -> Machine:
    """A machine without nestd, as after its first boot."""
    booted.load(BASE)
    return booted


@pytest.fixture(scope="session")
def deb(progress: Progress) -> Path:
    """nestd's package, built from this tree."""
    progress("building nestd's package")
    return package.build()


@pytest.fixture(scope="session")
def installed(booted: Machine, deb: Path, progress: Progress) -> Machine:
    """The session's machine, with a snapshot that has nestd installed and running."""
    booted.load(BASE)
    progress(f"installing {deb.name}")
    package.install(booted, deb)
    booted.save(package.INSTALLED)
    return booted


@pytest.fixture
def machine(installed: Machine) -> Machine:
    """A machine in which nestd was just installed from its package, and runs."""
    installed.load(package.INSTALLED)
    return installed
