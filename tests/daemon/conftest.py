# SPDX-License-Identifier: LGPL-2.1-or-later
"""A bus with our policy and a machine for each test; what the daemon is to find there, the test says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.village import Village, village
from tests.support.clients import Client
from tests.support.daemon import POLICY, Daemon
from tests.support.privatebus import PrivateBus
from tests.support.tools import Tools
from tests.support.tree import Tree

MACHINE_ID = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def bus() -> Iterator[PrivateBus]:
    """A bus with the stock system policy and ours, and no polkit."""
    with PrivateBus(policies=[POLICY]) as bus:
        yield bus


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """An AMD machine with kvm_amd loaded, nesting on as the kernel has it."""
    tree = Tree(tmp_path / "machine").amd().module("kvm_amd").write("/etc/machine-id", MACHINE_ID + "\n")
    tree.path("/etc/modprobe.d").mkdir()
    return tree


@pytest.fixture
def tools(tree: Tree) -> Tools:
    """Its modprobe, rmmod and systemd-detect-virt."""
    return Tools(tree)


@pytest.fixture
def daemon(bus: PrivateBus, tree: Tree, tools: Tools) -> Iterator[Daemon]:
    """nestd on that machine."""
    with Daemon(bus, tree) as daemon:
        yield daemon


@pytest.fixture
def root(bus: PrivateBus, daemon: Daemon) -> Iterator[Client]:
    """A client of nestd as root."""
    with Client(bus.address) as client:
        yield client


@pytest.fixture
def place() -> Iterator[Village]:
    """A machine for many guests, without its daemon."""
    with village() as place:
        yield place
