# SPDX-License-Identifier: LGPL-2.1-or-later
"""When nestd is ready, and how it reads its configuration again (SIGHUP, Type=notify-reload)."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nestd.model import Nesting, Scope, Waiting
from tests.support.clients import Client
from tests.support.daemon import Daemon, by_hand
from tests.support.privatebus import PrivateBus
from tests.support.tools import Tools
from tests.support.tree import Tree

pytestmark = pytest.mark.bus

CONFIG = "/etc/nestd/nestd.conf"
KEEP, LEAVE = "[Nesting]\nEnforce=when-idle\n", "[Nesting]\nEnforce=no\n"
NESTED = "/sys/module/kvm_amd/parameters/nested"
ZZ = "/etc/modprobe.d/zz-nestd.conf"


def reload(daemon: Daemon) -> None:
    """As systemd does it, and checks it, for Type=notify-reload (service.c, service_notify_message)."""
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    os.kill(daemon.pid, signal.SIGHUP)
    told = dict(line.split("=", 1) for line in daemon.notified("RELOADING=1").split("\n"))
    assert set(told) == {"RELOADING", "MONOTONIC_USEC"}
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert before <= int(told["MONOTONIC_USEC"]) <= after
    daemon.notified("READY=1")


def drift(daemon: Daemon, tools: Tools) -> None:
    """Somebody loads the driver with nesting on, and the kernel says so."""
    by_hand(tools, "rmmod", "kvm_amd")
    daemon.uevent("remove", "kvm_amd")
    by_hand(tools, "modprobe", "kvm_amd", "nested=1")
    daemon.uevent("add", "kvm_amd")


def remedy(root: Client) -> str:
    """What the check `drift` says is to be done."""
    [found] = [row[3] for row in root.call("Diagnose")[0] if row[0] == "drift"]
    return str(found)


def test_it_is_followed(root: Client, daemon: Daemon, tree: Tree, tools: Tools) -> None:
    daemon.notified("READY=1")
    root.call("Disable", "a{sv}", [{}])
    root.subscribe()
    drift(daemon, tools)
    assert root.signal("Drift")[:2] == ["off", "on"]
    assert "Enforce= in nestd.conf keeps it" in remedy(root)

    tree.write(CONFIG, KEEP)
    reload(daemon)
    root.signal("PropertiesChanged", lambda body: body[1].get("Nested") == "off")
    assert tree.read(NESTED) == "0\n"

    tree.write(CONFIG, LEAVE)
    reload(daemon)
    drift(daemon, tools)
    assert root.signal("Drift")[:2] == ["off", "on"]
    assert "Enforce= in nestd.conf keeps it" in remedy(root)
    assert "The configuration was read again: Enforce=no, Loader=auto." in daemon.stderr()


def test_what_is_broken_is_told_and_the_rest_counts(root: Client, daemon: Daemon, tree: Tree) -> None:
    daemon.notified("READY=1")
    tree.write(CONFIG, "Enforce=no\n[Boot]\nLoader=lilo\n[Nesting]\nEnforce=when-idle\nEnfroce=no\n")
    reload(daemon)
    said = daemon.stderr()
    assert f"{CONFIG}:1: Enforce= stands before the first section." in said
    assert f"{CONFIG}:3: Loader= takes auto, grub" in said
    assert f"{CONFIG}:6: there is no Enfroce= in [Nesting]" in said
    assert "The configuration was read again: Enforce=when-idle, Loader=auto." in said
    assert root.get("Nested") == "on"


def test_in_the_middle_of_a_change(root: Client, daemon: Daemon, tree: Tree, tools: Tools) -> None:
    daemon.notified("READY=1")
    tree.write(CONFIG, KEEP)
    tools.fail("rmmod", "kvm_amd", hang=0.5)
    call = root.send("Disable", "a{sv}", [{}])
    while not any(one[0] == "rmmod" for one in tools.calls()):
        root.get("Nested")
    reload(daemon)
    assert root.reply(call)[0]["nested"] == "off"
    assert tree.read(NESTED) == "0\n"
    assert [one[0] for one in tools.calls() if one[0] == "rmmod"] == ["rmmod"]


def test_many_at_once_are_noticed_by_nobody(root: Client, daemon: Daemon, tree: Tree) -> None:
    daemon.notified("READY=1")
    root.subscribe()
    told = []
    for number in range(20):
        tree.write(CONFIG, KEEP if number % 2 else LEAVE)
        for _ in range(20):
            os.kill(daemon.pid, signal.SIGHUP)
        assert root.call("GetStatus")[0]["nested"] == "on"
        told += daemon.notified_so_far()
    assert {message.partition("\n")[0] for message in told} == {"RELOADING=1", "READY=1"}
    # Whatever the last of them met with: who asks now gets the configuration as it is now.
    os.kill(daemon.pid, signal.SIGHUP)
    while "Enforce=when-idle" not in daemon.stderr()[daemon.stderr().rindex("The configuration was read") :]:
        root.get("Nested")
        daemon.notified_so_far()
    assert "PropertiesChanged" not in root.signals_so_far()


@pytest.fixture
def busy_udev(tree: Tree, tools: Tools) -> Path:
    """udev loads the driver only now, and is busy until the file returned is written."""
    by_hand(tools, "rmmod", "kvm_amd")
    go = tree.top / ".kernel/go"
    program = tools.folder / "udevadm"
    program.write_text(
        f"#!/bin/sh\n{tools.folder}/modprobe -- kvm_amd nested=0\n: > {go}-waits\n"
        f"while ! [ -e {go} ]; do :; done\n"
    )
    program.chmod(0o755)
    return go


@pytest.fixture
def spawned(bus: PrivateBus, tree: Tree, tools: Tools) -> Iterator[Daemon]:
    """A daemon that is started by the test."""
    daemon = Daemon(bus, tree)
    try:
        yield daemon
    finally:
        daemon.close()


def test_at_boot_it_is_ready_after_udev_and_says_what_came_up(
    bus: PrivateBus, tree: Tree, busy_udev: Path, spawned: Daemon
) -> None:
    """Its name is there before; a SIGHUP that comes too early is followed later."""
    tree.write(ZZ, "options kvm_amd nested=1\n")
    spawned.start()
    os.kill(spawned.pid, signal.SIGHUP)
    with Client(bus.address) as root:
        assert root.get("DriverState") in ("unloaded", "loaded")
        assert "configuration was read again" not in spawned.stderr()
        assert "nestd was told" not in spawned.stderr()
        busy_udev.touch()
        message = spawned.notified("READY=1")
        assert "RELOADING" not in message and busy_udev.exists()
        assert "Nesting is off, and nestd was told on: it came up so in this boot" in spawned.stderr()
        assert root.call("GetStatus")[0]["drift"].startswith("it came up so in this boot")
    spawned.notified("RELOADING=1")
    spawned.notified("READY=1")
    assert spawned.stop() == 0


def test_it_can_be_stopped_while_udev_is_busy(busy_udev: Path, spawned: Daemon) -> None:
    spawned.start()
    while not Path(f"{busy_udev}-waits").exists():
        time.sleep(0.01)
    assert spawned.stop() == 0
    assert "Traceback" not in spawned.stderr()


@pytest.mark.parametrize("why", ["pending", "enforced"])
def test_it_is_ready_when_the_driver_is_what_was_told(
    tree: Tree, tools: Tools, spawned: Daemon, why: str
) -> None:
    if why == "pending":
        waiting = Waiting(Nesting.OFF, Scope.BOTH, 0)
        tree.write("/var/lib/nestd/pending", json.dumps(waiting._asdict()))
        tree.path("/var/lib/nestd/pending").chmod(0o600)
    else:
        tree.write(ZZ, "options kvm_amd nested=0\n").write(CONFIG, KEEP)
    spawned.start()
    spawned.notified("READY=1")
    assert tree.read(NESTED) == "0\n"
    assert spawned.stop() == 0


def test_who_uses_the_driver_already_is_not_waited_for(tree: Tree, tools: Tools, spawned: Daemon) -> None:
    tree.write(ZZ, "options kvm_amd nested=0\n").write(CONFIG, KEEP)
    tree.write("/sys/module/kvm_amd/refcnt", "1\n").process(1, "qemu", "anon_inode:kvm-vm")
    spawned.start()
    spawned.notified("READY=1")
    assert tree.read(NESTED) == "1\n"
    assert spawned.stop() == 0
