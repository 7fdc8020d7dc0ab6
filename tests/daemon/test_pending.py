# SPDX-License-Identifier: LGPL-2.1-or-later
"""when-idle, CancelPending, Drift and Enforce, as they are seen on the bus."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clients import Client, options
from tests.support.daemon import Daemon, by_hand
from tests.support.privatebus import PrivateBus
from tests.support.tools import Tools
from tests.support.tree import Tree

pytestmark = pytest.mark.bus

ZZ = "/etc/modprobe.d/zz-nestd.conf"
REFCNT = "/sys/module/kvm_amd/refcnt"
CONFIG = "/etc/nestd/nestd.conf"
STEPS = [f"write {ZZ}: options kvm_amd nested=0", "unload kvm_amd", "load kvm_amd with nested=0"]


@pytest.fixture
def holder(tree: Tree) -> Iterator[int]:
    """A process with a virtual machine."""
    with subprocess.Popen(["sleep", "60"]) as process:
        tree.write(REFCNT, "1\n").process(process.pid, "qemu", "anon_inode:kvm-vm")
        yield process.pid
        process.kill()


def let_go(tree: Tree, holder: int) -> None:
    tree.gone(f"/proc/{holder}").replace(REFCNT, "0\n")


def rows(client: Client) -> dict[str, tuple[str, str]]:
    """The checks that are about this, by their ids: verdict and message."""
    found = client.call("Diagnose")[0]
    return {row[0]: (row[1], row[2]) for row in found if row[0] in ("pending", "drift")}


def descriptors(daemon: Daemon) -> int:
    return len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))


def test_it_waits_is_seen_and_is_done(root: Client, daemon: Daemon, tree: Tree, holder: int) -> None:
    root.subscribe()
    assert root.get("PendingChange") == ""
    daemon.notified("READY=1")  # it opens a socket for that
    before = descriptors(daemon)
    result = root.call("Disable", "a{sv}", [options(when_idle=True)])[0]
    assert result == {
        "changed": False, "nested": "on", "nested-at-boot": "on", "reboot-required": False,
        "pending": True, "steps": STEPS,
    }  # fmt: skip
    assert root.signal("PropertiesChanged")[1] == {"PendingChange": "off"}
    assert (root.get("PendingChange"), root.get_all()["PendingChange"]) == ("off", "off")
    status = root.call("GetStatus")[0]
    told = [status[f"pending-{key}"] for key in ("change", "scope", "user")]
    assert told == ["off", "both", 0]
    assert rows(root)["pending"][0] == "warn"
    let_go(tree, holder)
    daemon.machine_event()
    root.signal("PropertiesChanged", lambda body: body[1].get("Nested") == "off")
    assert root.signal("PropertiesChanged")[1] == {"PendingChange": ""}
    assert (root.get("Nested"), root.get("NestedAtBoot"), root.get("Policy")) == ("off", "off", "off")
    status = root.call("GetStatus")[0]
    assert (status["pending-change"], "pending-scope" in status) == ("", False)
    assert rows(root) == {
        "pending": ("pass", "No change waits for the driver to become idle."),
        "drift": ("pass", "The running kernel has what nestd was last told."),
    }
    # and nothing listens any more
    assert descriptors(daemon) == before


def test_a_dry_run_says_that_it_would_wait(root: Client, holder: int) -> None:
    result = root.call("Disable", "a{sv}", [options(when_idle=True, dry_run=True)])[0]
    assert (result["pending"], result["steps"], root.get("PendingChange")) == (True, STEPS, "")


def test_without_the_option_it_is_refused(root: Client, holder: int) -> None:
    assert root.error("Disable", "a{sv}", [options(when_idle=False)]).name == "org.nestd1.Error.InUse"
    assert root.get("PendingChange") == ""


def test_it_is_cancelled(root: Client, daemon: Daemon, tree: Tree, holder: int) -> None:
    assert root.call("CancelPending") == []
    root.call("Disable", "a{sv}", [options(when_idle=True)])
    root.subscribe()
    assert root.call("CancelPending") == []
    root.signal("PropertiesChanged", lambda body: body[1].get("PendingChange") == "")
    let_go(tree, holder)
    daemon.machine_event()
    assert (root.get("PendingChange"), root.get("Nested")) == ("", "on")
    assert not tree.root.exists(ZZ)


def test_it_outlives_a_kill(bus: PrivateBus, tree: Tree, tools: Tools, holder: int) -> None:
    first = Daemon(bus, tree)
    try:
        first.start()
        with Client(bus.address) as root:
            root.call("Disable", "a{sv}", [options(when_idle=True)])
    finally:
        first.close()  # SIGKILL
    with Daemon(bus, tree) as daemon, Client(bus.address) as root:
        root.subscribe()
        assert root.get("PendingChange") == "off"
        let_go(tree, holder)
        daemon.machine_event()
        root.signal("PropertiesChanged", lambda body: body[1].get("Nested") == "off")
        assert root.get("PendingChange") == ""


def test_its_failure_is_said(root: Client, daemon: Daemon, tree: Tree, tools: Tools, holder: int) -> None:
    root.subscribe()
    root.call("Disable", "a{sv}", [options(when_idle=True)])
    tools.fail("rmmod", "kvm_amd", code=1, words="ERROR: Module kvm_amd is wedged")
    let_go(tree, holder)
    daemon.machine_event()
    root.signal("PropertiesChanged", lambda body: body[1].get("PendingChange") == "")
    verdict, message = rows(root)["pending"]
    assert verdict == "fail" and "is wedged" in message
    assert "MESSAGE_ID=a94c3b1d007348988afdca08ead970ff" in daemon.stderr()


def reload(tools: Tools, daemon: Daemon, *arguments: str) -> None:
    """Somebody does, and the kernel says so."""
    by_hand(tools, "rmmod", "kvm_amd")
    daemon.uevent("remove", "kvm_amd")
    by_hand(tools, "modprobe", "kvm_amd", *arguments)
    daemon.uevent("add", "kvm_amd")


def test_drift_is_told_once(root: Client, daemon: Daemon, tools: Tools) -> None:
    root.call("Disable", "a{sv}", [{}])
    root.subscribe()
    reload(tools, daemon, "nested=1")
    cause = "the driver was loaded anew with other arguments"
    assert root.signal("Drift") == ["off", "on", cause]
    assert root.call("GetStatus")[0]["drift"] == cause
    assert rows(root)["drift"] == ("warn", f"Nesting is on, and nestd was told off: {cause}.")
    daemon.uevent("add", "kvm")
    root.signal("ModuleEvent", lambda body: body == ["add", "kvm"])
    root.call("Disable", "a{sv}", [{}])
    assert root.call("GetStatus")[0]["drift"] == ""
    assert "Drift" not in root.signals_so_far()


def test_enforced(bus: PrivateBus, tree: Tree, tools: Tools) -> None:
    tree.write(CONFIG, "[Nesting]\nEnforce=when-idle\nEnfroce=no\n")
    with Daemon(bus, tree) as daemon, Client(bus.address) as root:
        assert f"{CONFIG}:3: there is no Enfroce= in [Nesting]" in daemon.stderr()
        root.call("Disable", "a{sv}", [{}])
        root.subscribe()
        reload(tools, daemon, "nested=1")
        assert root.signal("Drift")[:2] == ["off", "on"]
        root.signal("PropertiesChanged", lambda body: body[1].get("Nested") == "off")
        assert root.call("GetStatus")[0]["drift"] == ""
