# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon killed in the middle of a change, or on a disk that fails: the old state or the new."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import faults
from tests.support.clients import CallError, Client, Variant, options
from tests.support.daemon import Daemon
from tests.support.faults import KILL_AFTER, KILL_BEFORE, Faults
from tests.support.privatebus import PrivateBus
from tests.support.tools import Tools
from tests.support.tree import Tree

pytestmark = pytest.mark.bus

ZZ = "/etc/modprobe.d/zz-nestd.conf"
RECORD = "/var/lib/nestd/change"
ERRORS = (errno.ENOSPC, errno.EROFS, errno.EIO, errno.EPERM)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What makes calls fail, built here."""
    return faults.build(tmp_path_factory.mktemp("faults"))


@pytest.fixture
def disk(library: Path, tmp_path: Path) -> Iterator[Faults]:
    """The faults of the daemon that is started with it."""
    with Faults(library, tmp_path) as found:
        yield found


@pytest.fixture
def failing(bus: PrivateBus, tree: Tree, tools: Tools, disk: Faults) -> Iterator[Client]:
    """A client of a daemon whose disk can fail."""
    daemon = Daemon(bus, tree)
    try:
        daemon.start(disk.environment)
        with Client(bus.address) as client:
            yield client
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.stderr(), daemon.stderr()
    finally:
        daemon.close()


State = tuple[str | None, str | None]
OLD: State = (None, "1")
NEW: State = ("options kvm_amd nested=0", "0")
BOOT_ALONE: State = (NEW[0], OLD[1])


def state(tree: Tree) -> State:
    """The drop-in's last line, and the driver's switch."""
    text = tree.root.read(ZZ)
    switch = tree.root.read("/sys/module/kvm_amd/parameters/nested")
    return text and text.splitlines()[-1], switch and switch.strip()


def afresh(tree: Tree, tools: Tools, client: Client) -> None:
    """Nesting on, and no drop-in; with whatever was left, another change works."""
    client.call("Enable", "a{sv}", [{}])
    assert state(tree) == ("options kvm_amd nested=1", "1")
    assert not tree.root.exists(RECORD)
    tree.gone(ZZ)


def disabled(client: Client, given: dict[str, Variant], done: State) -> set[State]:
    """Call Disable; what may be then: `done`, or after an error the old state.

    What could not be undone is told, and is the drop-in alone: the driver is back in any case, as that
    needs no disk.
    """
    try:
        client.call("Disable", "a{sv}", [given])
    except CallError as error:
        stuck = error.name.endswith(".RollbackFailed")
        assert stuck or error.name.endswith(".ReloadFailed"), error
        return {OLD, BOOT_ALONE} if stuck else {OLD}
    return {done}


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from-then-on"])
@pytest.mark.parametrize("number", ERRORS, ids=[errno.errorcode[number] for number in ERRORS])
def test_each_write_fails(
    failing: Client, tree: Tree, tools: Tools, disk: Faults, number: int, lasting: bool
) -> None:
    """The drop-in alone: every call on the way to it, and to its journal."""
    for call in range(200):
        disk.arm(call, number, lasting=lasting)
        expected = disabled(failing, options(scope="boot"), BOOT_ALONE)
        calls = disk.disarm()
        assert state(tree) in expected, (call, state(tree), expected)
        [verdict] = {row[1] for row in failing.call("Diagnose")[0] if row[0] == "change"}
        if len(expected) > 1 and state(tree) != OLD:
            assert verdict == "fail"
        else:
            assert verdict == ("warn" if tree.root.exists(RECORD) else "pass"), call
        afresh(tree, tools, failing)
        if calls <= call:
            assert call > 20
            return
    pytest.fail("there is no end of it")


@pytest.mark.parametrize(
    ("number", "lasting"), [(errno.EIO, False), (errno.ENOSPC, True)], ids=["EIO-once", "ENOSPC-from-then-on"]
)
def test_writes_fail_around_a_reload(
    failing: Client, tree: Tree, tools: Tools, disk: Faults, number: int, lasting: bool
) -> None:
    for call in range(0, 200, 3):
        disk.arm(call, number, lasting=lasting)
        expected = disabled(failing, {}, NEW)
        calls = disk.disarm()
        assert state(tree) in expected, (call, state(tree), expected)
        afresh(tree, tools, failing)
        if calls <= call:
            return
    pytest.fail("there is no end of it")


def killed(bus: PrivateBus, tree: Tree, environment: dict[str, str] | None = None) -> None:
    """A daemon that is told to disable nesting, and does not live to answer."""
    daemon = Daemon(bus, tree)
    try:
        daemon.start(environment)
        with Client(bus.address) as client:
            client.send("Disable", "a{sv}", [{}])
            assert daemon.ended() == -9, daemon.stderr()
    finally:
        daemon.close()


def healed(bus: PrivateBus, tree: Tree, tools: Tools) -> State:
    """The state that the next daemon serves with, which can do everything then."""
    with Daemon(bus, tree), Client(bus.address) as client:
        found = state(tree)
        assert (client.get("NestedAtBoot"), client.get("Nested")) == {
            OLD: ("on", "on"), NEW: ("off", "off")
        }[found]  # fmt: skip
        assert not tree.root.exists(RECORD)
        parameters = client.call("GetStatus")[0]["parameters"]
        assert parameters["npt"] == "N"
        afresh(tree, tools, client)
    return found


@pytest.fixture
def by_hand_npt(tree: Tree) -> None:
    """Another parameter was given by hand, and kvm's too."""
    tree.write("/sys/module/kvm_amd/parameters/npt", "N\n")
    tree.write("/sys/module/kvm/parameters/halt_poll_ns", "12345\n")


# mkdir of three folders, unlink of what was left, open, write, fsync: then the journal is renamed.
_RENAMED = 7


@pytest.mark.usefixtures("by_hand_npt")
@pytest.mark.parametrize(
    ("call", "when"),
    [(0, KILL_BEFORE), *((at, KILL_AFTER) for at in (5, 6, 7, 8, 11, 18, 21, 25, 34, 43, 52, 61))],
)
def test_killed_at_a_write(
    bus: PrivateBus, tree: Tree, tools: Tools, disk: Faults, call: int, when: int
) -> None:
    disk.arm(call, when)
    killed(bus, tree, disk.environment)
    calls = disk.disarm()
    assert calls == call + 1
    # Once the journal's first entry has its name it is gone on with.
    assert healed(bus, tree, tools) == (NEW if call >= _RENAMED else OLD)
    assert tree.read("/sys/module/kvm/parameters/halt_poll_ns") == "12345\n"


@pytest.mark.usefixtures("by_hand_npt")
@pytest.mark.parametrize("tool", ["rmmod", "modprobe"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_by_its_tool(bus: PrivateBus, tree: Tree, tools: Tools, tool: str, when: str) -> None:
    """At the first call of it; the tool itself goes on, as one that sleeps in the kernel does."""
    program, real = tools.folder / tool, tree.top / ".kernel" / "real" / tool
    real.parent.mkdir()
    program.rename(real)
    mark = tree.top / "killed-once"
    kill = f"[ -e {mark} ] || {{ echo $$ > {mark}; kill -9 $PPID; }}"
    before, after = (kill, "") if when == "before" else ("", kill)
    program.write_text(
        f'#!/bin/sh\nPATH=/usr/bin:/bin\n{before}\n{real} "$@"; code=$?\n{after}\nexit $code\n'
    )
    program.chmod(0o755)
    killed(bus, tree)
    assert healed(bus, tree, tools) == NEW
    os.waitpid(int(mark.read_text()), 0)  # adopted, as its parent is dead


def test_a_disk_that_fails_does_not_keep_it_from_starting(
    bus: PrivateBus, tree: Tree, tools: Tools, disk: Faults
) -> None:
    """Half a change and a read-only disk: it serves, and says what is; the next start settles it."""
    tools.fail("modprobe", "kvm_amd", code=1, words="ERROR: no")
    disk.arm(45, KILL_AFTER)
    killed(bus, tree, disk.environment)
    disk.disarm()
    folders = [tree.path("/var/lib/nestd"), tree.path("/etc/modprobe.d")]
    with Daemon(bus, tree, read_only=folders) as daemon, Client(bus.address) as client:
        assert client.get("NestedAtBoot") == "off"
        assert RECORD in daemon.stderr()
    assert tree.root.exists(RECORD)
    with Daemon(bus, tree), Client(bus.address) as client:
        assert state(tree) in (OLD, NEW)
        assert not tree.root.exists(RECORD)


def test_a_record_that_nobody_understands_is_set_aside(bus: PrivateBus, tree: Tree, tools: Tools) -> None:
    tree.write(RECORD, '{"boot": ""')
    with Daemon(bus, tree) as daemon, Client(bus.address) as client:
        assert client.get("Nested") == "on"
        assert f"{RECORD}.broken" in daemon.stderr()
        assert tree.read(f"{RECORD}.broken") == '{"boot": ""'
        afresh(tree, tools, client)


def test_a_second_daemon_leaves_the_change_of_the_first_alone(
    bus: PrivateBus, tree: Tree, tools: Tools
) -> None:
    tools.fail("rmmod", "kvm_amd", hang=3.0)
    with Daemon(bus, tree), Client(bus.address) as client:
        call = client.send("Disable", "a{sv}", [{}])
        while not any(one[0] == "rmmod" for one in tools.calls()):
            client.get("Nested")
        second = Daemon(bus, tree)
        try:
            second.spawn()
            assert second.ended() == 1
        finally:
            second.close()
        assert client.reply(call)[0]["nested"] == "off"
    assert state(tree) == NEW
    assert [one[0] for one in tools.calls()].count("rmmod") == 1
