# SPDX-License-Identifier: LGPL-2.1-or-later
"""Bad input and machines on which it cannot be done: a named error that helps, and nothing changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import NOBODY, PROPERTIES, Client, Variant, options
from tests.support.daemon import Daemon
from tests.support.privatebus import PrivateBus
from tests.support.tools import Tools
from tests.support.tree import Tree

pytestmark = pytest.mark.bus

OWN = "org.nestd1.Error."
INVALID = "org.freedesktop.DBus.Error.InvalidArgs"
ZZ = "/etc/modprobe.d/zz-nestd.conf"


def nested(tree: Tree) -> str | None:
    return tree.root.read("/sys/module/kvm_amd/parameters/nested")


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an option that does not exist": ({"scoop": Variant("s", "boot")}, "scoop"),
    "the wrong type": ({"scope": Variant("u", 1)}, "scope"),
    "the wrong type, a container": ({"dry-run": Variant("as", ["yes"])}, "dry-run"),
    "an impossible value": ({"scope": Variant("s", "never")}, "never"),
    "control characters": ({"scope": Variant("s", "bo\x1b[2Jot\n")}, "scope"),
    "an empty name": ({"": Variant("b", True)}, ""),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_options_are_refused(root: Client, tree: Tree, what: str) -> None:
    given, named = WRONG[what]
    for member in ("Enable", "Disable"):
        error = root.error(member, "a{sv}", [given])
        assert error.name == INVALID
        assert named in error.text
        assert error.text.isprintable()
    assert nested(tree) == "1\n"
    assert not tree.root.exists(ZZ)


def test_wrong_options_are_refused_before_anybody_is_asked(bus: PrivateBus, daemon: Daemon) -> None:
    with Client(bus.address, NOBODY) as nobody:
        assert nobody.error("Disable", "a{sv}", [options(scope="never")]).name == INVALID


@pytest.mark.parametrize(
    ("member", "signature", "body"),
    [("Enable", "", []), ("Enable", "s", ["on"]), ("Disable", "a{sv}u", [{}, 1]), ("GetStatus", "b", [True])],
)
def test_a_wrong_signature_is_refused(
    root: Client, tree: Tree, member: str, signature: str, body: list[Any]
) -> None:
    assert root.error(member, signature, body).name == INVALID
    assert nested(tree) == "1\n"


def test_what_does_not_exist_is_named(root: Client) -> None:
    standard = "org.freedesktop.DBus.Error."
    assert root.error("Frobnicate").name == standard + "UnknownMethod"
    assert root.error("GetStatus", path="/org/nestd1/nothing").name == standard + "UnknownObject"
    assert root.error("GetStatus", interface="org.nestd1.Guest").name in (
        standard + "UnknownInterface",
        standard + "UnknownMethod",
    )
    get = root.error("Get", "ss", ["org.nestd1.Manager", "Colour"], interface=PROPERTIES)
    assert get.name == standard + "UnknownProperty"
    body = ["org.nestd1.Manager", "Nested", Variant("s", "on")]
    assert root.error("Set", "ssv", body, interface=PROPERTIES).name == standard + "PropertyReadOnly"


def test_no_traceback_and_no_path_of_the_source_crosses_the_bus(root: Client) -> None:
    for error in (
        root.error("Frobnicate"),
        root.error("Enable", "s", ["on"]),
        root.error("GetGuest", "s", ["x"]),
    ):
        assert "Traceback" not in error.text and ".py" not in error.text


IN_THE_WAY: dict[str, Any] = {
    "no-extension": lambda tree: tree.amd(flags="fpu sse2 lm").gone("/sys/module/kvm_amd"),
    "driver-missing": lambda tree: tree.gone("/sys/module/kvm_amd").without("kvm_amd"),
    "kvm-unusable": lambda tree: tree.write("/.kernel/kvm-refuses", "13").write(
        "/sys/module/kvm_amd/parameters/nested", "0\n"
    ),
    "module-loading-disabled": lambda tree: tree.modules_disabled().write(
        "/sys/module/kvm_amd/parameters/nested", "0\n"
    ),
}


@pytest.mark.parametrize("obstacle", IN_THE_WAY)
def test_an_obstacle_is_named_by_its_code(bus: PrivateBus, tree: Tree, tools: Tools, obstacle: str) -> None:
    IN_THE_WAY[obstacle](tree)
    before = nested(tree)
    with Daemon(bus, tree), Client(bus.address) as root:
        assert root.get("Obstacle") == obstacle
        error = root.error("Enable", "a{sv}", [options(scope="runtime")])
        assert error.name == OWN + "NotSupported"
        assert error.text.startswith(obstacle)
        assert len(error.text) > len(obstacle) + 20, "no reason and no remedy"
    assert nested(tree) == before


def test_modules_disabled_while_nesting_is_on(bus: PrivateBus, tree: Tree, tools: Tools) -> None:
    """Nothing is in the way of what is, but Disable cannot reload."""
    tree.modules_disabled()
    with Daemon(bus, tree), Client(bus.address) as root:
        error = root.error("Disable", "a{sv}", [{}])
        assert error.name in (OWN + "NotSupported", OWN + "ReloadFailed")
        assert root.get("Nested") == "on"
    assert not tree.root.exists(ZZ)


def test_a_built_in_driver_needs_the_command_line(bus: PrivateBus, tmp_path: Path) -> None:
    tree = Tree(tmp_path / "machine").amd().builtin("kvm").builtin("kvm_amd")
    Tools(tree)
    with Daemon(bus, tree), Client(bus.address) as root:
        error = root.error("Disable", "a{sv}", [{}])
        assert error.name == OWN + "BootloaderUnknown"
        assert "kvm_amd.nested=0" in error.text
        error = root.error("Disable", "a{sv}", [options(scope="runtime")])
        assert error.name == OWN + "NotSupported"
        assert "built into" in error.text


def test_the_command_line_overrides(bus: PrivateBus, tree: Tree, tools: Tools) -> None:
    tree.cmdline("root=/dev/vda1 kvm-amd.nested=1")
    with Daemon(bus, tree), Client(bus.address) as root:
        error = root.error("Disable", "a{sv}", [{}])
        assert error.name == OWN + "Overridden"
        assert "kernel command line" in error.text
    assert nested(tree) == "1\n"
    assert not tree.root.exists(ZZ)


def test_a_file_that_sorts_later_overrides(root: Client, tree: Tree) -> None:
    tree.dropin("zzz.conf", "options kvm_amd nested=1\n")
    error = root.error("Disable", "a{sv}", [options(scope="boot")])
    assert error.name == OWN + "Overridden"
    assert "/etc/modprobe.d/zzz.conf:1" in error.text
    assert not tree.root.exists(ZZ)


def test_in_use_names_the_holders(bus: PrivateBus, tree: Tree, tools: Tools) -> None:
    tree.write("/sys/module/kvm_amd/refcnt", "2\n")
    tree.process(4711, "qemu-system-x86", "/dev/kvm", "anon_inode:kvm-vm",
                 cgroup="0::/machine.slice/nestd-guest-demo.service\n")  # fmt: skip
    with Daemon(bus, tree), Client(bus.address) as root:
        error = root.error("Disable", "a{sv}", [{}])
        assert error.name == OWN + "InUse"
        for word in ("kvm_amd", "qemu-system-x86", "4711", "nestd-guest-demo.service"):
            assert word in error.text
        assert root.call("GetStatus")[0]["users"] == 2
    assert nested(tree) == "1\n"
    assert not tree.root.exists(ZZ)


def test_modprobe_that_fails_is_rolled_back(root: Client, tree: Tree, tools: Tools) -> None:
    tools.fail("modprobe", "kvm_amd", code=1, words="ERROR: could not insert 'kvm_amd': Input/output error")
    error = root.error("Disable", "a{sv}", [{}])
    assert error.name == OWN + "ReloadFailed"
    assert "Input/output error" in error.text and "old state is back" in error.text
    assert nested(tree) == "1\n"
    assert not tree.root.exists(ZZ)
    assert (root.get("Nested"), root.get("NestedAtBoot"), root.get("Policy")) == ("on", "on", "unmanaged")


def test_a_rollback_puts_the_old_file_back(root: Client, tree: Tree, tools: Tools) -> None:
    root.call("Enable", "a{sv}", [options(scope="boot")])
    before = tree.read(ZZ)
    tools.fail("modprobe", "kvm_amd", code=1)
    assert root.error("Disable", "a{sv}", [{}]).name == OWN + "ReloadFailed"
    assert tree.read(ZZ) == before


def test_modprobe_that_lies_is_found_out(root: Client, tree: Tree, tools: Tools) -> None:
    # It is given five chances, as udev may load the driver in between.
    for _ in range(5):
        tools.fail("modprobe", "kvm_amd", idle=True)
    assert root.error("Disable", "a{sv}", [{}]).name == OWN + "ReloadFailed"
    assert nested(tree) == "1\n"
    assert not tree.root.exists(ZZ)


def test_a_rollback_that_fails_says_what_is_loaded(root: Client, tree: Tree, tools: Tools) -> None:
    # The load, the way back, and the way back without the other parameters.
    for _ in range(3):
        tools.fail("modprobe", "kvm_amd", code=1, words="ERROR: no luck")
    error = root.error("Disable", "a{sv}", [{}])
    assert error.name == OWN + "RollbackFailed"
    assert "kvm_amd is unloaded" in error.text
    assert not tree.root.exists(ZZ)
    assert root.get("DriverState") == "unloaded"


@pytest.mark.parametrize("tool", ["modprobe", "rmmod"])
def test_a_tool_that_is_missing_is_named(root: Client, tree: Tree, tools: Tools, tool: str) -> None:
    tools.without(tool)
    error = root.error("Disable", "a{sv}", [{}])
    # Without modprobe what rmmod took away cannot be brought back, unless it is missed in time.
    assert error.name in (OWN + "ReloadFailed", OWN + "NotSupported")
    assert f"{tool} is not installed" in error.text
    assert nested(tree) == "1\n"
    assert not tree.root.exists(ZZ)


def test_etc_read_only(bus: PrivateBus, tree: Tree, tools: Tools) -> None:
    tree.dropin("other.conf", "\n")
    with Daemon(bus, tree, read_only=[tree.path("/etc")]), Client(bus.address) as root:
        for scope in ("both", "boot"):
            error = root.error("Disable", "a{sv}", [options(scope=scope)])
            assert error.name == OWN + "ReloadFailed"
            assert "Read-only file system" in error.text and ZZ in error.text
        assert (root.get("Nested"), root.get("NestedAtBoot")) == ("on", "on")
        assert root.call("Disable", "a{sv}", [options(scope="runtime")])[0]["nested"] == "off"


def test_a_folder_in_the_drop_ins_place(root: Client, tree: Tree) -> None:
    tree.path(ZZ).mkdir(parents=True)
    error = root.error("Disable", "a{sv}", [{}])
    assert error.name == OWN + "ReloadFailed"
    assert ZZ in error.text
    assert nested(tree) == "1\n"
    assert tree.path(ZZ).is_dir()
