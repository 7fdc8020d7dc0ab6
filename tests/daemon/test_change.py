# SPDX-License-Identifier: LGPL-2.1-or-later
"""Enable and Disable by root: what is done, in which order, and what it is when it is done."""

from __future__ import annotations

import pytest

from tests.support.busctl import busctl_json
from tests.support.clients import MANAGER, NAME, PATH, Client, options
from tests.support.daemon import Daemon, by_hand
from tests.support.privatebus import PrivateBus
from tests.support.tools import Tools
from tests.support.tree import Tree

pytestmark = pytest.mark.bus

ZZ = "/etc/modprobe.d/zz-nestd.conf"
WRITE, UNLOAD, LOAD = f"write {ZZ}: options kvm_amd nested=0", "unload kvm_amd", "load kvm_amd with nested=0"


def option_lines(tree: Tree) -> list[str]:
    return [line for line in tree.read(ZZ).splitlines() if not line.startswith("#")]


def changes(tools: Tools) -> list[list[str]]:
    """The tools' calls that change something."""
    calls = [[word for word in call if word != "--"] for call in tools.calls()]
    return [call for call in calls if call[0] in ("modprobe", "rmmod")]


def test_disable_reaches_the_kernel_and_the_file(root: Client, tree: Tree, tools: Tools) -> None:
    result = root.call("Disable", "a{sv}", [{}])[0]
    assert result == {
        "changed": True, "nested": "off", "nested-at-boot": "off", "reboot-required": False, "pending": False,
        "steps": [WRITE, UNLOAD, LOAD],
    }  # fmt: skip
    assert tree.read("/sys/module/kvm_amd/parameters/nested") == "0\n"
    assert option_lines(tree) == ["options kvm_amd nested=0"]
    assert (tree.path(ZZ).stat().st_mode & 0o777, tree.path(ZZ).stat().st_uid) == (0o644, 0)
    assert changes(tools) == [["rmmod", "kvm_amd"], ["modprobe", "kvm_amd", "nested=0"]]
    assert (root.get("Nested"), root.get("NestedAtBoot"), root.get("Policy")) == ("off", "off", "off")


def test_enable_brings_it_back(root: Client, tree: Tree) -> None:
    root.call("Disable", "a{sv}", [{}])
    result = root.call("Enable", "a{sv}", [{}])[0]
    assert (result["changed"], result["nested"], result["nested-at-boot"]) == (True, "on", "on")
    assert tree.read("/sys/module/kvm_amd/parameters/nested") == "1\n"
    assert option_lines(tree) == ["options kvm_amd nested=1"]
    assert root.get("Policy") == "on"


def test_busctl_as_the_issue_has_it(bus: PrivateBus, daemon: Daemon) -> None:
    """`busctl call ... Disable a{sv} 0`."""
    result = busctl_json(bus.address, "call", NAME, PATH, MANAGER, "Disable", "a{sv}", "0")
    assert result[0]["nested"] == "off"
    assert busctl_json(bus.address, "get-property", NAME, PATH, MANAGER, "Nested") == "off"


def test_what_kvm_was_told_at_run_time_is_kept(root: Client, tree: Tree) -> None:
    tree.write("/sys/module/kvm/parameters/ignore_msrs", "Y\n")
    root.call("Disable", "a{sv}", [{}])
    assert tree.read("/sys/module/kvm/parameters/ignore_msrs") == "Y\n"


def test_runtime_leaves_the_file_alone(root: Client, tree: Tree) -> None:
    result = root.call("Disable", "a{sv}", [options(scope="runtime")])[0]
    assert (result["nested"], result["nested-at-boot"]) == ("off", "on")
    assert result["steps"] == [UNLOAD, LOAD]
    assert not tree.root.exists(ZZ)
    assert root.get("Policy") == "unmanaged"


def test_boot_leaves_the_kernel_alone(root: Client, tree: Tree, tools: Tools) -> None:
    result = root.call("Disable", "a{sv}", [options(scope="boot")])[0]
    assert (result["nested"], result["nested-at-boot"]) == ("on", "off")
    assert result["steps"] == [WRITE]
    assert changes(tools) == []
    assert root.get("Policy") == "off"


def test_dry_run_tells_and_does_nothing(root: Client, tree: Tree, tools: Tools) -> None:
    result = root.call("Disable", "a{sv}", [options(dry_run=True)])[0]
    assert result["steps"] == [WRITE, UNLOAD, LOAD]
    assert (result["changed"], result["nested"], result["nested-at-boot"]) == (False, "on", "on")
    assert changes(tools) == []
    assert not tree.root.exists(ZZ)


def test_what_is_so_already_is_not_done_again(root: Client, tree: Tree, tools: Tools) -> None:
    root.call("Disable", "a{sv}", [{}])
    before = changes(tools)
    written = tree.path(ZZ).stat()
    result = root.call("Disable", "a{sv}", [{}])[0]
    assert (result["changed"], result["steps"], result["nested"]) == (False, [], "off")
    assert changes(tools) == before
    assert tree.path(ZZ).stat() == written


def test_an_unloaded_driver_is_loaded_as_wished(root: Client, daemon: Daemon, tools: Tools) -> None:
    by_hand(tools, "rmmod", "kvm_amd")
    result = root.call("Enable", "a{sv}", [options(scope="runtime")])[0]
    assert (result["nested"], result["steps"]) == ("on", ["load kvm_amd with nested=1"])


def test_a_hand_written_line_of_ours_is_replaced_whole(root: Client, tree: Tree) -> None:
    tree.dropin("zz-nestd.conf", "options kvm_amd nested=1 avic=1\n# mine\n")
    root.call("Disable", "a{sv}", [options(scope="boot")])
    assert option_lines(tree) == ["options kvm_amd nested=0"]
    assert "mine" not in tree.read(ZZ)


def test_a_link_in_the_drop_ins_place_is_not_followed(root: Client, tree: Tree) -> None:
    tree.write("/etc/shadow", "secret\n")
    tree.path(ZZ).symlink_to(tree.path("/etc/shadow"))
    error = root.error("Disable", "a{sv}", [{}])
    assert error.name == "org.nestd1.Error.ReloadFailed"
    assert ZZ in error.text
    assert tree.read("/etc/shadow") == "secret\n"
    assert tree.path(ZZ).is_symlink()
    assert root.get("Nested") == "on"


def test_the_folder_is_made_where_there_is_none(root: Client, tree: Tree) -> None:
    tree.gone("/etc/modprobe.d")
    root.call("Disable", "a{sv}", [options(scope="boot")])
    assert option_lines(tree) == ["options kvm_amd nested=0"]


def test_two_changes_at_once_are_refused(root: Client, tree: Tree, tools: Tools, bus: PrivateBus) -> None:
    tools.fail("rmmod", "kvm_amd", hang=1.0)
    with Client(bus.address) as other:
        slow = root.send("Disable", "a{sv}", [{}])
        while not any(call[0] == "rmmod" for call in tools.calls()):
            assert other.get("Nested") == "on"  # it goes on answering meanwhile
        error = other.error("Enable", "a{sv}", [{}])
        assert error.name == "org.nestd1.Error.Busy"
        assert root.reply(slow)[0]["nested"] == "off"
        assert other.call("Enable", "a{sv}", [{}])[0]["nested"] == "on"


def test_a_change_goes_on_when_its_caller_leaves(root: Client, tools: Tools, bus: PrivateBus) -> None:
    tools.fail("rmmod", "kvm_amd", hang=0.5)
    root.subscribe()
    with Client(bus.address) as leaver:
        leaver.send("Disable", "a{sv}", [{}])
        while not any(call[0] == "rmmod" for call in tools.calls()):
            root.get("Nested")
    root.signal("PropertiesChanged", lambda values: values[1].get("Nested") == "off")
    assert root.get("NestedAtBoot") == "off"
