# SPDX-License-Identifier: LGPL-2.1-or-later
"""Each attack on the real daemon, on each bus, while another client asks for the status."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.attacks import victim
from tests.attacks.attacks import ATTACKS
from tests.attacks.bystander import ANSWER, ANSWER_IN_FLOOD, ask, attacked
from tests.attacks.machine import busy
from tests.support.clients import ALICE, Client
from tests.support.daemon import POLICY, Daemon
from tests.support.journal import FakeJournal
from tests.support.privatebus import Kind, PrivateBus

pytestmark = pytest.mark.bus

_FLOOD, _SHORT_FLOOD = 8.0, 4.0
# What waits for answers must get some; here the bus may end every connection, or nobody waits.
_ANSWERED = set(ATTACKS) - {"broken_bodies", "flood", "flood_of_scans", "never_reads", "random_bytes"}


@pytest.fixture(params=list(Kind))
def bus(request: pytest.FixtureRequest) -> Iterator[PrivateBus]:
    """Each implementation, with the stock system policy and ours, and no polkit."""
    with PrivateBus(policies=[POLICY], kind=request.param) as bus:
        bus.complaints_expected = True  # dbus-daemon writes down what the policy refused
        yield bus


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[FakeJournal]:
    with FakeJournal(tmp_path) as journal:
        yield journal


@pytest.fixture
def daemon(bus: PrivateBus, tmp_path: Path, journal: FakeJournal) -> Iterator[Daemon]:
    """nestd on an AMD machine, with a journal to write to."""
    with Daemon(bus, busy(tmp_path / "machine"), journal=journal.folder) as daemon:
        yield daemon


@pytest.mark.parametrize("name", ATTACKS)
def test_attack(bus: PrivateBus, daemon: Daemon, journal: FakeJournal, name: str) -> None:
    """Others are answered meanwhile; afterwards everything is as before."""
    limit = ANSWER_IN_FLOOD if name.startswith("flood") else ANSWER
    with Client(bus.address, ALICE) as bystander:
        owner = bystander.owner_of("org.nestd1")
        told = [attacked(bus, bystander, name, _SHORT_FLOOD, limit).told]  # what is kept once does not count
        ask(bystander, limit)
        before = victim.at_rest(daemon.pid)
        told += [attacked(bus, bystander, name, _FLOOD, limit).told]
        more = victim.grown(daemon.pid, before)
        assert not more, more
        assert victim.alive(daemon)
        assert bystander.owner_of("org.nestd1") == owner
        ask(bystander, limit)
    for each in told:
        _judge(name, each)
    lines = journal.lines()
    assert lines, "what nestd says when it starts is in its journal"
    lines += daemon.stderr().splitlines()  # what the journal had no room for
    assert len(lines) <= victim.LINES, lines
    assert not [line for line in lines if "unforeseen" in line or "could not be handled" in line], lines


def _judge(name: str, told: dict[str, Any]) -> None:
    print(name, told)
    assert set(told["errors"]) <= victim.CLOSED, told
    assert not [text for text in told["errors"].values() if victim.told_too_much(text)], told
    assert told["answers"] or name not in _ANSWERED, told
