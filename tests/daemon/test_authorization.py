# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who may: several users, with the real polkitd, its rules and an agent, and without polkit."""

from __future__ import annotations

import re

import pytest

from tests.support.busctl import busctl
from tests.support.clients import ALICE, BOB, MANAGER, NAME, NOBODY, PATH, Client, options
from tests.support.daemon import Daemon
from tests.support.polkitd import Agent, Polkitd, allow, question_of
from tests.support.privatebus import PrivateBus
from tests.support.tools import Tools
from tests.support.tree import Tree

pytestmark = pytest.mark.bus

DENIED = "org.freedesktop.DBus.Error.AccessDenied"
ASK = "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"
RUNTIME, BOOT = "org.nestd1.set-runtime", "org.nestd1.set-boot"
NOTHING = (0, None)  # no tool was called, no file written


def touched(tree: Tree, tools: Tools) -> tuple[int, str | None]:
    changing = [call for call in tools.calls() if call[0] in ("modprobe", "rmmod")]
    return len(changing), tree.root.read("/etc/modprobe.d/zz-nestd.conf")


@pytest.mark.parametrize("uid", [ALICE, NOBODY])
@pytest.mark.parametrize("member", ["Enable", "Disable"])
def test_without_authorization_nothing_happens(
    bus: PrivateBus, daemon: Daemon, tree: Tree, tools: Tools, uid: int, member: str
) -> None:
    with Polkitd(bus), Client(bus.address, uid) as client:
        for scope in ("both", "runtime", "boot"):
            assert client.error(member, "a{sv}", [options(scope=scope)]).name == ASK
        assert client.get("Nested") == "on"
    assert touched(tree, tools) == NOTHING


def test_busctl_of_an_unprivileged_user_is_refused(
    bus: PrivateBus, daemon: Daemon, tree: Tree, tools: Tools
) -> None:
    """busctl allows interaction, but nobody is there to be asked."""
    with Polkitd(bus):
        done = busctl(bus.address, "call", NAME, PATH, MANAGER, "Disable", "a{sv}", "0", uid=ALICE)
    assert done.returncode != 0
    assert re.search("authoriz|permission|not allowed|denied", done.stderr, re.IGNORECASE), done.stderr
    assert touched(tree, tools) == NOTHING


def test_a_rule_that_allows_is_enough(bus: PrivateBus, daemon: Daemon, tree: Tree) -> None:
    with Polkitd(bus, allow(RUNTIME, BOOT, uid=BOB)), Client(bus.address, BOB) as bob:
        assert bob.call("Disable", "a{sv}", [{}])[0]["nested"] == "off"
        with Client(bus.address, ALICE) as alice:
            assert alice.error("Enable", "a{sv}", [{}]).name == ASK
    assert tree.read("/sys/module/kvm_amd/parameters/nested") == "0\n"


@pytest.mark.parametrize(
    ("allowed", "works", "refused"),
    [(RUNTIME, ["runtime"], ["boot", "both"]), (BOOT, ["boot"], ["runtime", "both"])],
)
def test_each_scope_needs_its_own_action(
    bus: PrivateBus, daemon: Daemon, allowed: str, works: list[str], refused: list[str]
) -> None:
    with Polkitd(bus, allow(allowed, uid=BOB)), Client(bus.address, BOB) as bob:
        for scope in refused:
            assert bob.error("Disable", "a{sv}", [options(scope=scope)]).name == ASK
        for scope in works:
            assert bob.call("Disable", "a{sv}", [options(scope=scope)])[0]["changed"] is True


def test_a_rule_that_forbids_is_a_denial(bus: PrivateBus, daemon: Daemon, tree: Tree, tools: Tools) -> None:
    rule = "polkit.addRule(function() { return polkit.Result.NO; });"
    with Polkitd(bus, rule), Client(bus.address, ALICE) as alice:
        assert alice.error("Disable", "a{sv}", [{}]).name == DENIED
        assert alice.error("Disable", "a{sv}", [{}], interactive=True).name == DENIED
    assert touched(tree, tools) == NOTHING


def test_an_agent_is_asked_and_says_yes(bus: PrivateBus, daemon: Daemon, tree: Tree) -> None:
    with Polkitd(bus), Client(bus.address, ALICE) as alice, Agent(bus, ALICE) as agent:
        call = alice.send("Disable", "a{sv}", [options(scope="runtime")], interactive=True)
        asked = agent.asked()
        question = question_of(asked)
        assert question["action"] == RUNTIME
        assert "turn nested virtualization off now" in question["message"]
        assert alice.get("Nested") == "on"  # nothing happens, and nobody waits, while it is asked
        agent.approve(asked)
        assert alice.reply(call)[0]["nested"] == "off"
    assert tree.read("/sys/module/kvm_amd/parameters/nested") == "0\n"


def test_an_agent_is_asked_and_is_dismissed(
    bus: PrivateBus, daemon: Daemon, tree: Tree, tools: Tools
) -> None:
    with Polkitd(bus), Client(bus.address, ALICE) as alice, Agent(bus, ALICE) as agent:
        call = alice.send("Disable", "a{sv}", [options(scope="boot")], interactive=True)
        asked = agent.asked()
        assert question_of(asked)["action"] == BOOT
        agent.dismiss(asked)
        assert alice.failure(call).name == DENIED
    assert touched(tree, tools) == NOTHING


def test_nobody_is_asked_unless_the_caller_allows_it(bus: PrivateBus, daemon: Daemon) -> None:
    with Polkitd(bus), Client(bus.address, ALICE) as alice, Agent(bus, ALICE) as agent:
        assert alice.error("Disable", "a{sv}", [{}]).name == ASK
        agent.client.call("Ping", destination=NAME, path=PATH, interface="org.freedesktop.DBus.Peer")
        assert agent.client.calls_so_far() == []


def test_the_question_is_withdrawn_when_the_caller_leaves(bus: PrivateBus, daemon: Daemon) -> None:
    with Polkitd(bus), Agent(bus, ALICE) as agent:
        with Client(bus.address, ALICE) as alice:
            alice.send("Disable", "a{sv}", [options(scope="runtime")], interactive=True)
            agent.asked()
        agent.client.incoming("CancelAuthentication")
        with Client(bus.address, ALICE) as again:
            assert again.get("Nested") == "on"


def test_root_is_not_asked(bus: PrivateBus, daemon: Daemon) -> None:
    rule = "polkit.addRule(function() { return polkit.Result.NO; });"
    with Polkitd(bus, rule), Client(bus.address) as root:
        assert root.call("Disable", "a{sv}", [{}])[0]["nested"] == "off"


def test_without_polkit_root_may_and_others_only_read(
    bus: PrivateBus, daemon: Daemon, tree: Tree, tools: Tools
) -> None:
    with Client(bus.address, ALICE) as alice, Client(bus.address) as root:
        assert alice.error("Disable", "a{sv}", [{}]).name == DENIED
        assert alice.error("Disable", "a{sv}", [{}], interactive=True).name == DENIED
        assert alice.error("Launch", "sa{sv}", ["demo", {}]).name == DENIED
        assert alice.call("GetStatus")[0]["nested"] == "on"
        assert alice.call("ListHolders") == [[]]
        assert touched(tree, tools) == NOTHING
        assert root.call("Disable", "a{sv}", [{}])[0]["nested"] == "off"


def test_polkit_may_come_later_and_go(bus: PrivateBus, daemon: Daemon) -> None:
    with Client(bus.address, BOB) as bob:
        assert bob.error("Disable", "a{sv}", [{}]).name == DENIED
        with Polkitd(bus, allow(RUNTIME, BOOT, uid=BOB)):
            assert bob.call("Disable", "a{sv}", [{}])[0]["nested"] == "off"
        assert bob.error("Enable", "a{sv}", [{}]).name == DENIED


def test_a_dry_run_is_open_to_everyone_as_reading_is(
    bus: PrivateBus, daemon: Daemon, tree: Tree, tools: Tools
) -> None:
    with Polkitd(bus), Client(bus.address, NOBODY) as nobody:
        assert nobody.call("Disable", "a{sv}", [options(dry_run=True)])[0]["changed"] is False
    assert touched(tree, tools) == NOTHING


def test_reading_asks_polkit_nothing(bus: PrivateBus, daemon: Daemon) -> None:
    rule = 'polkit.addRule(function(action) { polkit.log("asked " + action.id); });'
    with Polkitd(bus, rule) as polkit, Client(bus.address, NOBODY) as nobody:
        nobody.get_all()
        nobody.call("GetStatus")
        nobody.call("ListHolders")
        assert "asked" not in polkit.complaints()
