# SPDX-License-Identifier: LGPL-2.1-or-later
"""The next boot over the bus: a driver that is built in, and GRUB; tools run as units of the fake systemd."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ctl.running import Terminal
from tests.support import fakeloaders
from tests.support.clients import Client, Variant, options
from tests.support.daemon import Daemon
from tests.support.fakesystemd import FakeSystemd
from tests.support.privatebus import PrivateBus
from tests.support.tools import Tools
from tests.support.tree import Tree

pytestmark = pytest.mark.bus

ERROR = "org.nestd1.Error."
OURS = "/etc/default/grub.d/zz-nestd.cfg"
GRUB_CFG = "/boot/grub/grub.cfg"
DEFAULTS = 'GRUB_DEFAULT=0\nGRUB_CMDLINE_LINUX_DEFAULT="quiet"\nGRUB_CMDLINE_LINUX="{}"\n'
RUN = "run update-grub"
# It waits in the middle as long as the file is there.
GATE = 'while test -e "${0%/.kernel/bin/*}/gate"; do sleep 0.05; done\n'
SAYS = "/usr/sbin/grub-probe: error: cannot find a device for / (is /dev mounted?)."
BROKEN = f"#!/bin/sh\necho '{SAYS}' >&2\nexit 1\n"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """An AMD machine with KVM built in, nesting on."""
    tree = Tree(tmp_path / "machine").amd().builtin("kvm").builtin("kvm_amd").write("/dev/kvm", "")
    tree.write("/etc/machine-id", fakeloaders.MACHINE_ID + "\n").write(
        "/etc/default/grub", DEFAULTS.format("")
    )
    for folder in ("/etc/modprobe.d", "/etc/default/grub.d", "/var/lib/nestd", "/run"):
        tree.path(folder).mkdir(parents=True)
    return tree


@pytest.fixture
def tools(tree: Tree) -> Tools:
    """GRUB's, too; grub.cfg is made."""
    tools = Tools(tree)
    fakeloaders.grub(tree, tools)
    made(tools)
    return tools


@pytest.fixture
def daemon(bus: PrivateBus, tree: Tree, tools: Tools) -> Iterator[Daemon]:
    with FakeSystemd(bus.address, tree.top, tools.folder), Daemon(bus, tree) as daemon:
        yield daemon


def made(tools: Tools) -> None:
    """Somebody runs update-grub."""
    subprocess.run([tools.folder / "update-grub"], check=True, timeout=30)


def slow(tree: Tree, tools: Tools) -> None:
    """From now on update-grub waits for `go`."""
    tree.write("/gate", "")
    fakeloaders.programs(tools, update_grub=fakeloaders.UPDATE_GRUB.replace("set -e\n", f"set -e\n{GATE}"))


def go(tree: Tree) -> None:
    tree.gone("/gate")


def lines(tree: Tree) -> list[str]:
    """What each kernel is given, without its recovery mode."""
    found = [line for line in tree.read(GRUB_CFG).splitlines() if line.startswith("\tlinux")]
    return [line.partition(" ro ")[2].strip() for line in found if " single" not in line]


def files(tree: Tree) -> dict[str, bytes]:
    found = {}
    for folder in ("/etc", "/boot"):
        for path in tree.path(folder).rglob("*"):
            if path.is_file():
                found[str(path.relative_to(tree.top))] = path.read_bytes()
    return found


def test_off_at_the_next_boot_and_back_byte_for_byte(root: Client, tree: Tree) -> None:
    before = files(tree)
    result = root.call("Disable", "a{sv}", [options(scope="boot")])[0]
    assert (result["changed"], result["nested"], result["nested-at-boot"]) == (True, "on", "off")
    assert result["reboot-required"] is True and RUN in result["steps"]
    assert all("kvm_amd.nested=0" in line.split() for line in lines(tree)) and lines(tree)
    assert (root.get("NestedAtBoot"), root.get("RebootRequired"), root.get("Policy")) == ("off", True, "off")
    again = root.call("Disable", "a{sv}", [options(scope="boot")])[0]
    assert (again["changed"], again["steps"]) == (False, [])
    result = root.call("Revert", "a{sv}", [{}])[0]
    assert (result["changed"], result["nested-at-boot"], result["reboot-required"]) == (True, "on", False)
    assert files(tree) == before
    assert root.get("Policy") == "unmanaged"
    assert root.call("Revert", "a{sv}", [{}])[0]["changed"] is False


def test_a_long_tool_is_a_step_that_everybody_can_see(
    root: Client, bus: PrivateBus, tree: Tree, tools: Tools
) -> None:
    slow(tree, tools)
    with Client(bus.address) as listener:
        listener.subscribe()
        call = root.send("Disable", "a{sv}", [options(scope="boot")])
        [path, _] = listener.signal("InterfacesAdded", lambda body: "org.nestd1.Job" in body[1])
        listener.signal("PropertiesChanged", lambda body: body[1].get("Step") == RUN)
        [found] = listener.call(
            "GetAll", "s", ["org.nestd1.Job"], path=path, interface="org.freedesktop.DBus.Properties"
        )
        assert found["Operation"] == "disable" and 0 < found["Progress"] < 1
        assert listener.error("Enable", "a{sv}", [{}]).name == f"{ERROR}Busy"
        go(tree)
        assert listener.signal("Completed") == [True, ""]
    assert root.reply(call)[0]["nested-at-boot"] == "off"


def test_nestctl_shows_it_and_what_has_to_be_rebooted(
    bus: PrivateBus, daemon: Daemon, tree: Tree, tools: Tools
) -> None:
    slow(tree, tools)
    with Terminal(bus, "disable", "--boot") as terminal:
        terminal.expect(f"%: {RUN} (")
        go(tree)
        assert terminal.end() == 0
    told = "nesting stays on in the running kernel, and is off after a reboot"
    assert f"Reboot to settle it: {told}." in terminal.seen
    with Terminal(bus, "status") as terminal:
        assert terminal.end() == 0
    assert f"required: {told}" in terminal.seen


def test_a_tool_that_fails_is_told_in_its_own_words_and_all_is_back(
    root: Client, bus: PrivateBus, tree: Tree, tools: Tools
) -> None:
    fakeloaders.programs(tools, update_grub=BROKEN)
    before = files(tree)
    with Client(bus.address) as listener:
        listener.subscribe()
        error = root.error("Disable", "a{sv}", [options(scope="boot")])
        assert error.name == f"{ERROR}BootloaderFailed"
        assert SAYS.rstrip(".") in error.text and "update-grub" in error.text
        assert listener.signal("Completed") == [False, error.text]
    assert files(tree) == before
    assert (root.get("NestedAtBoot"), root.get("Policy")) == ("on", "unmanaged")
    with Terminal(bus, "disable", "--boot") as terminal:
        assert terminal.end() == 1
    assert "[BootloaderFailed]" in terminal.seen.replace("\x1b[2m", "").replace("\x1b[0m", "")


def test_what_somebody_else_has_set_is_replaced_only_if_told_and_comes_back(
    root: Client, tree: Tree, tools: Tools
) -> None:
    tree.write("/etc/default/grub", DEFAULTS.format("kvm_amd.nested=1"))
    made(tools)
    before = files(tree)
    error = root.error("Disable", "a{sv}", [options(scope="boot")])
    assert error.name == f"{ERROR}Overridden"
    assert "kvm_amd.nested=1" in error.text and "replace" in error.text
    assert files(tree) == before
    result = root.call("Disable", "a{sv}", [options(scope="boot", replace=True)])[0]
    assert result["nested-at-boot"] == "off"
    assert not any("kvm_amd.nested=1" in line.split() for line in lines(tree))
    root.call("Revert", "a{sv}", [{}])
    assert files(tree) == before


def test_the_one_who_is_named_writes_it_or_says_that_it_cannot(root: Client, tree: Tree) -> None:
    before = files(tree)
    error = root.error("Disable", "a{sv}", [options(scope="boot", loader="grubby")])
    assert error.name == f"{ERROR}BootloaderUnknown" and "grubby" in error.text
    assert files(tree) == before
    result = root.call("Disable", "a{sv}", [options(scope="boot", loader="grub", dry_run=True)])[0]
    assert RUN in result["steps"] and files(tree) == before
    root.call("Disable", "a{sv}", [{"scope": Variant("s", "boot"), "loader": Variant("s", "grub")}])
    assert tree.root.exists(OURS)


def test_where_nobody_writes_it_the_argument_is_told(
    root: Client, tree: Tree, tools: Tools, bus: PrivateBus
) -> None:
    for path in (GRUB_CFG, "/etc/default/grub", "/etc/grub.d"):
        tree.gone(path)
    tools.without("update-grub")
    tools.without("grub-mkconfig")
    error = root.error("Disable", "a{sv}", [options(scope="boot")])
    assert error.name == f"{ERROR}BootloaderUnknown"
    assert "kvm_amd.nested=0" in error.text
    with Terminal(bus, "disable", "--boot") as terminal:
        assert terminal.end() == 4
