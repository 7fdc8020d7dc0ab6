# SPDX-License-Identifier: LGPL-2.1-or-later
"""Revert: what nestd set for the next boots goes, what others have stays; and what it does to what waits."""

from __future__ import annotations

import pytest

from tests.support.clients import NOBODY, Client, options
from tests.support.privatebus import PrivateBus
from tests.support.tools import Tools
from tests.support.tree import Tree

pytestmark = pytest.mark.bus

ZZ = "/etc/modprobe.d/zz-nestd.conf"
REFCNT = "/sys/module/kvm_amd/refcnt"
BUSY = "org.nestd1.Error.Busy"


def files(tree: Tree) -> dict[str, bytes]:
    """What the next boot reads, and what nestd keeps of it."""
    found = {}
    for folder in ("/etc", "/boot", "/var/lib/nestd"):
        for path in tree.path(folder).rglob("*"):
            if path.is_file():
                found[str(path.relative_to(tree.top))] = path.read_bytes()
    return found


@pytest.mark.parametrize("member", ["Enable", "Disable"])
@pytest.mark.parametrize("scope", ["both", "boot"])
def test_it_is_as_if_nothing_had_been(root: Client, tree: Tree, member: str, scope: str) -> None:
    tree.dropin("mine.conf", "options kvm_amd nested=0 avic=1\n")
    before = files(tree)
    root.call(member, "a{sv}", [options(scope=scope)])
    running = root.get("Nested")
    result = root.call("Revert", "a{sv}", [{}])[0]
    assert result["changed"] is True and result["pending"] is False
    assert (result["nested"], result["nested-at-boot"]) == (running, "off")
    assert result["steps"] == [f"remove {ZZ}"]
    assert files(tree) == before
    assert (root.get("Policy"), root.get("Nested"), root.get("NestedAtBoot")) == ("unmanaged", running, "off")


def test_twice_is_once_and_never_is_fine(root: Client, tree: Tree) -> None:
    for _ in range(2):
        result = root.call("Revert", "a{sv}", [{}])[0]
        assert (result["changed"], result["steps"]) == (False, [])
    root.call("Disable", "a{sv}", [options(scope="boot")])
    assert [root.call("Revert", "a{sv}", [{}])[0]["changed"] for _ in range(2)] == [True, False]
    assert not tree.root.exists(ZZ)


def test_a_dry_run_is_open_to_everyone(bus: PrivateBus, root: Client, tree: Tree) -> None:
    root.call("Disable", "a{sv}", [options(scope="boot")])
    before = files(tree)
    with Client(bus.address, NOBODY) as nobody:
        result = nobody.call("Revert", "a{sv}", [options(dry_run=True)])[0]
        assert nobody.error("Revert", "a{sv}", [{}]).name == "org.freedesktop.DBus.Error.AccessDenied"
    assert (result["changed"], result["steps"], result["nested-at-boot"]) == (False, [f"remove {ZZ}"], "off")
    assert files(tree) == before


def test_what_waits_is_void_once_it_has_succeeded(root: Client, tree: Tree) -> None:
    root.call("Disable", "a{sv}", [options(scope="boot")])
    tree.replace(REFCNT, "1\n")
    root.call("Disable", "a{sv}", [options(scope="runtime", when_idle=True)])
    assert root.get("PendingChange") == "off"
    root.call("Revert", "a{sv}", [options(dry_run=True)])
    assert root.get("PendingChange") == "off"
    assert root.call("Revert", "a{sv}", [{}])[0]["changed"] is True
    assert root.get("PendingChange") == ""


def test_while_a_change_runs_it_is_refused(root: Client, bus: PrivateBus, tools: Tools) -> None:
    tools.fail("rmmod", "kvm_amd", hang=1.0)
    slow = root.send("Disable", "a{sv}", [{}])
    while not any(call[0] == "rmmod" for call in tools.calls()):
        root.get("Nested")
    with Client(bus.address) as other:
        assert other.error("Revert", "a{sv}", [{}]).name == BUSY
    assert root.reply(slow)[0]["changed"] is True
    assert root.call("Revert", "a{sv}", [{}])[0]["nested-at-boot"] == "on"
