# SPDX-License-Identifier: LGPL-2.1-or-later
"""Each attack on the real daemon, on each bus, while another client asks for the status."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.attacks import victim
from tests.attacks.attacks import ATTACKS
from tests.support.clients import ALICE, Client
from tests.support.daemon import POLICY, TOP, Daemon
from tests.support.privatebus import Kind, PrivateBus
from tests.support.tools import Tools
from tests.support.tree import Tree

pytestmark = pytest.mark.bus

_ANSWER = 5.0  # seconds for the bystander's call
# dbus-broker queues some 100,000 calls of a flood before it drops the rest: they come first.
_ANSWER_IN_FLOOD = 20.0
_ATTACK = 120.0  # seconds for an attack
_FLOOD, _SHORT_FLOOD = 8.0, 4.0
# What waits for answers must get some; here the bus may end every connection, or nobody waits.
_ANSWERED = set(ATTACKS) - {"broken_bodies", "flood", "never_reads", "random_bytes"}


@pytest.fixture(params=list(Kind))
def bus(request: pytest.FixtureRequest) -> Iterator[PrivateBus]:
    """Each implementation, with the stock system policy and ours, and no polkit."""
    with PrivateBus(policies=[POLICY], kind=request.param) as bus:
        bus.complaints_expected = True  # dbus-daemon writes down what the policy refused
        yield bus


@pytest.fixture
def daemon(bus: PrivateBus, tmp_path: Path) -> Iterator[Daemon]:
    """nestd on an AMD machine."""
    tree = Tree(tmp_path / "machine").amd().module("kvm_amd").write("/etc/machine-id", "0" * 32 + "\n")
    Tools(tree)
    with Daemon(bus, tree) as daemon:
        yield daemon


@pytest.mark.parametrize("name", ATTACKS)
def test_attack(bus: PrivateBus, daemon: Daemon, name: str) -> None:
    """Others are answered meanwhile; afterwards everything is as before."""
    with Client(bus.address, ALICE) as bystander:
        owner = bystander.owner_of("org.nestd1")
        attack(bus, bystander, name, _SHORT_FLOOD)  # what is loaded and kept once does not count
        bystander.reply(bystander.send("GetStatus"), _limit(name))
        before = victim.size(daemon.pid)
        attack(bus, bystander, name, _FLOOD)
        more = victim.grown(daemon.pid, before)
        assert not more, more
        assert victim.alive(daemon)
        assert bystander.owner_of("org.nestd1") == owner
        assert bystander.reply(bystander.send("GetStatus"), _limit(name))
    lines = daemon.stderr().splitlines()
    assert len(lines) <= victim.LINES, lines
    assert not [line for line in lines if "unforeseen" in line or "could not be handled" in line], lines


def attack(bus: PrivateBus, bystander: Client, name: str, seconds: float) -> None:
    """Attack once; the bystander asks all the while, and nestd's answers are looked at."""
    argv = [sys.executable, "-m", "tests.attacks.attacker", bus.address, name, str(seconds)]
    end = time.monotonic() + _ATTACK
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=TOP, text=True) as attacker:
        try:
            while attacker.poll() is None and time.monotonic() < end:
                assert bystander.reply(bystander.send("GetStatus"), _limit(name))
                time.sleep(0.01)
        finally:
            if attacker.poll() is None:
                attacker.kill()
        told, _ = attacker.communicate()
    assert attacker.returncode == 0, f"the attack itself failed: {attacker.returncode}"
    _judge(name, json.loads(told))


def _limit(name: str) -> float:
    return _ANSWER_IN_FLOOD if name == "flood" else _ANSWER


def _judge(name: str, told: dict[str, Any]) -> None:
    print(name, told)
    assert set(told["errors"]) <= victim.CLOSED, told
    assert not [text for text in told["errors"].values() if victim.told_too_much(text)], told
    assert told["answers"] or name not in _ANSWERED, told
