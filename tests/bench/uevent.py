# SPDX-License-Identifier: LGPL-2.1-or-later
"""From a kernel uevent to PropertiesChanged at a client: the real daemon on a tree, a real netlink socket."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support.clients import Client
from tests.support.daemon import POLICY, Daemon, by_hand
from tests.support.privatebus import PrivateBus
from tests.support.tools import Tools
from tests.support.tree import Tree

# Sends a uevent for each line it reads, as tests/support/daemon.py does, and says when.
_SENDER = """
import socket, struct, sys, time
with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 15) as out:
    for line in sys.stdin:
        action = line.strip()
        head = f"{action}@/module/kvm_amd\\0ACTION={action}\\0"
        text = (head + "DEVPATH=/module/kvm_amd\\0SUBSYSTEM=module\\0").encode()
        now = time.monotonic()
        out.sendto(struct.pack("=IHHII", 16 + len(text), 16, 1, 1, 0) + text, (0, 0))
        print(now, flush=True)
"""


def latencies(count: int) -> Iterator[float]:
    """Seconds, `count` times: kvm_amd goes and comes, and a client that listens is told."""
    with tempfile.TemporaryDirectory() as folder, PrivateBus(policies=[POLICY]) as bus:
        tree = Tree(Path(folder) / "machine").amd().module("kvm_amd").write("/etc/machine-id", f"{0:032x}\n")
        tree.path("/etc/modprobe.d").mkdir()
        tools = Tools(tree)
        with Daemon(bus, tree) as daemon, Client(bus.address) as client, _sender(daemon.pid) as sender:
            assert sender.stdin is not None and sender.stdout is not None
            client.subscribe()
            client.get_all()
            for number in range(count):
                leaves = number % 2 == 0
                by_hand(tools, "rmmod" if leaves else "modprobe", "kvm_amd")
                print("remove" if leaves else "add", file=sender.stdin, flush=True)
                state = "unloaded" if leaves else "loaded"
                _await(client, state)
                yield time.monotonic() - float(sender.stdout.readline())


def _await(client: Client, state: str) -> None:
    client.signal("PropertiesChanged", lambda body: body[1].get("DriverState") == state)


def _sender(pid: int) -> subprocess.Popen[str]:
    enter = ["nsenter", "-t", str(pid), "--net", sys.executable, "-I", "-S", "-c", _SENDER]
    return subprocess.Popen(enter, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
