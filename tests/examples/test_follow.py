# SPDX-License-Identifier: LGPL-2.1-or-later
"""examples/follow.py: a line for each event, whoever did it, also across a restart of nestd."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.examples.conftest import EXAMPLES
from tests.support.clients import LIMIT, NOBODY, Client
from tests.support.daemon import Daemon, by_hand
from tests.support.privatebus import PrivateBus
from tests.support.tools import Tools
from tests.support.tree import Tree

pytestmark = pytest.mark.bus


class Followed:
    """The example as a process, as a user without any rights."""

    def __init__(self, bus: PrivateBus) -> None:
        self.process = subprocess.Popen(
            [EXAMPLES / "follow.py"],
            env=bus.environment | {"PATH": "/usr/bin:/bin"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            user=NOBODY,
        )
        self.lines: list[str] = []
        self._rest = b""

    def until(self, line: str) -> None:
        """Wait for that line; what came before it is dropped."""
        assert self.process.stdout is not None
        end = time.monotonic() + LIMIT
        while line not in self.lines:
            assert select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))[0], self.lines
            data = os.read(self.process.stdout.fileno(), 65536)
            assert data, (self.lines, self.process.communicate()[1])
            *new, self._rest = (self._rest + data).split(b"\n")
            self.lines += [each.decode() for each in new]
        del self.lines[: self.lines.index(line) + 1]

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        _, errors = self.process.communicate(timeout=LIMIT)
        assert errors == b""
        return self.process.returncode


@pytest.fixture
def followed(bus: PrivateBus) -> Iterator[Followed]:
    followed = Followed(bus)
    yield followed
    followed.process.kill()
    followed.process.communicate()


def test_it_follows_and_ends_when_told(
    bus: PrivateBus, tree: Tree, tools: Tools, daemon: Daemon, root: Client, followed: Followed
) -> None:
    followed.until("nestd runs: nesting on, at the next boot on")
    root.call("Disable", "a{sv}", [{}])
    followed.until("guests get nesting: off")
    by_hand(tools, "rmmod", "kvm_amd")
    daemon.uevent("remove", "kvm_amd")
    followed.until("module kvm_amd: remove")
    by_hand(tools, "modprobe", "kvm_amd", "nested=1")
    daemon.uevent("add", "kvm_amd")
    followed.until("module kvm_amd: add")
    followed.until(
        "drift: nestd was told off, it is on: the driver was loaded anew with other arguments",
    )
    assert followed.interrupt() == 0


def test_nestd_may_come_and_go(bus: PrivateBus, tree: Tree, tools: Tools, followed: Followed) -> None:
    followed.until("nestd is not running")
    for _ in range(2):
        with Daemon(bus, tree), Client(bus.address) as root:
            followed.until("nestd runs: nesting on, at the next boot on")
            root.call("Disable", "a{sv}", [{}])
            followed.until("guests get nesting: off")
            root.call("Enable", "a{sv}", [{}])
            followed.until("guests get nesting: on")
        followed.until("nestd is not running")
