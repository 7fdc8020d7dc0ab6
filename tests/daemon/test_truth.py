# SPDX-License-Identifier: LGPL-2.1-or-later
"""What nestd says of machines, by properties and by GetStatus."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from nestd import __version__
from tests.support.busctl import busctl, busctl_json
from tests.support.clients import ALICE, MANAGER, NAME, NOBODY, PATH, Client
from tests.support.daemon import TOP, Daemon
from tests.support.privatebus import PrivateBus
from tests.support.tools import Tools
from tests.support.tree import Tree

pytestmark = pytest.mark.bus

ZZ = "/etc/modprobe.d/zz-nestd.conf"
NOW = ("Extension", "Driver", "DriverState", "Nested", "NestedAtBoot", "Policy", "RebootRequired", "Obstacle")

# What the machine is, and what the properties of NOW say then.
Build = Callable[[Tree], object]
MACHINES: dict[str, tuple[Build, tuple[Any, ...]]] = {
    "amd, as the kernel has it": (
        lambda tree: tree.amd().module("kvm_amd"),
        ("svm", "kvm_amd", "loaded", "on", "on", "unmanaged", False, ""),
    ),
    "amd, off by hand": (
        lambda tree: tree.amd().module("kvm_amd", nested="0"),
        ("svm", "kvm_amd", "loaded", "off", "on", "unmanaged", False, ""),
    ),
    "intel, off for good": (
        lambda tree: tree.intel().dropin("zz-nestd.conf", "options kvm_intel nested=0\n").module(
            "kvm_intel", nested="N"
        ),
        ("vmx", "kvm_intel", "loaded", "off", "off", "off", False, ""),
    ),
    "intel, on now, another's file says off": (
        lambda tree: tree.intel().dropin("kvm.conf", "options kvm-intel nested=0\n").module("kvm_intel"),
        ("vmx", "kvm_intel", "loaded", "on", "off", "unmanaged", False, ""),
    ),
    "intel, the command line beats the drop-in": (
        lambda tree: tree.intel()
        .cmdline("root=/dev/vda1 kvm_intel.nested=0")
        .dropin("zz-nestd.conf", "options kvm_intel nested=1\n")
        .module("kvm_intel"),
        ("vmx", "kvm_intel", "loaded", "on", "off", "on", False, ""),
    ),
    "amd, not loaded": (
        lambda tree: tree.amd(),
        ("svm", "kvm_amd", "unloaded", "off", "on", "unmanaged", False, ""),
    ),
    "amd, no module": (
        lambda tree: tree.amd().without("kvm_amd"),
        ("svm", "kvm_amd", "missing", "unsupported", "unsupported", "unmanaged", False, "driver-missing"),
    ),
    "amd, both drivers built in": (
        lambda tree: tree.amd().builtin("kvm").builtin("kvm_intel").builtin("kvm_amd"),
        ("svm", "kvm_amd", "builtin", "on", "on", "unmanaged", False, ""),
    ),
    "amd, built in, the command line changed since": (
        lambda tree: tree.amd().builtin("kvm").builtin("kvm_amd", nested="0"),
        ("svm", "kvm_amd", "builtin", "off", "on", "unmanaged", True, ""),
    ),
    "amd, module loading disabled, and off": (
        lambda tree: tree.amd().module("kvm_amd", nested="0").modules_disabled(),
        ("svm", "kvm_amd", "loaded", "off", "on", "unmanaged", True, "module-loading-disabled"),
    ),
    "no extension": (
        lambda tree: tree.amd(flags="fpu sse2 lm"),
        ("", "", "", "unsupported", "unsupported", "unmanaged", False, "hidden-by-hypervisor"),
    ),
    "kvm_pvm built in, no module support": (
        lambda tree: tree.pvm(),
        ("", "kvm_pvm", "builtin", "unsupported", "unsupported", "unmanaged", False,
         "driver-without-nesting"),
    ),
    "nothing can be read": (
        lambda tree: tree.gone("/proc").gone("/lib"),
        ("", "", "", "unsupported", "unsupported", "unmanaged", False, "hidden-by-hypervisor"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("machine", MACHINES)
def test_properties_and_status_tell_what_is(bus: PrivateBus, tmp_path: Path, machine: str) -> None:
    build, expected = MACHINES[machine]
    tree = Tree(tmp_path / "machine")
    build(tree)
    Tools(tree).virtualization("kvm")
    with Daemon(bus, tree), Client(bus.address, NOBODY) as client:
        properties = client.get_all()
        assert {name: properties[name] for name in NOW} == dict(zip(NOW, expected, strict=True))
        assert properties["Version"] == __version__
        assert properties["Virtualization"] == "kvm"
        for name, value in properties.items():
            assert client.get(name) == value
        status = client.call("GetStatus")[0]
        assert {key_of(name): value for name, value in properties.items()}.items() <= status.items()


def key_of(name: str) -> str:
    """The key of GetStatus for a property: NestedAtBoot is nested-at-boot."""
    return "".join(f"-{c.lower()}" if c.isupper() else c for c in name).lstrip("-")


def test_every_property_of_the_interface_is_there(root: Client) -> None:
    interface = ElementTree.parse(TOP / "data/org.nestd1.xml").find(f"interface[@name='{MANAGER}']")
    assert interface is not None
    assert set(root.get_all()) == {one.get("name") for one in interface.findall("property")}


def documented_keys() -> set[str]:
    """The keys of GetStatus as its comment in the XML lists them, each with its type after it."""
    comment = (TOP / "data/org.nestd1.xml").read_text().partition("<!-- GetStatus: ")[2].partition("-->")[0]
    listed = comment.partition("Keys: the properties as ")[2]
    return set(re.findall(r"([a-z-]+) (?:s|b|u|i|as|a\{ss\})(?=[ ,;.]|\n)", re.sub(r"\([^)]*\)", "", listed)))


def test_status_has_more_than_the_properties(root: Client) -> None:
    status = root.call("GetStatus")[0]
    # these two are there only while a change waits (tests/daemon/test_pending.py)
    assert status.keys() == documented_keys() - {"pending-scope", "pending-user"}
    assert status["parameters"] == {"nested": "1", "npt": "Y", "avic": "N"}
    assert (status["kvm-api"], status["guest-extension"], status["users"]) == (12, True, 0)
    assert (status["boot-source"], status["overridden"]) == ("kernel default", [])


def test_status_has_the_types_that_the_interface_says(bus: PrivateBus, daemon: Daemon) -> None:
    done = busctl(bus.address, "--json=short", "call", NAME, PATH, MANAGER, "GetStatus", uid=ALICE)
    assert done.returncode == 0, done.stderr
    for text in (
        '"extension":{"type":"s","data":"svm"}', '"reboot-required":{"type":"b","data":false}',
        '"parameters":{"type":"a{ss}"', '"kvm-api":{"type":"i","data":12}', '"users":{"type":"u","data":0}',
        '"guest-extension":{"type":"b","data":true}', '"overridden":{"type":"as"',
    ):  # fmt: skip
        assert text in done.stdout


def test_the_file_and_line_that_decide_are_named(bus: PrivateBus, tree: Tree, tools: Tools) -> None:
    tree.dropin("a.conf", "# none\noptions kvm-amd nested=0\n")
    tree.dropin("b.conf", "options kvm_amd npt=1 \\\n nested=1\n")
    tree.dropin("z.conf", "\n\noptions kvm_amd nested=0\n", folder="/run/modprobe.d")
    with Daemon(bus, tree), Client(bus.address) as client:
        status = client.call("GetStatus")[0]
        assert status["nested-at-boot"] == "off"
        assert status["boot-source"] == "/run/modprobe.d/z.conf:3"
        assert status["overridden"] == ["/etc/modprobe.d/b.conf:1"]


def test_holders_are_listed(bus: PrivateBus, tree: Tree, tools: Tools) -> None:
    tree.process(4711, "qemu-system-x86", "/dev/null", "/dev/kvm", "anon_inode:kvm-vm",
                 cgroup="0::/machine.slice/nestd-guest-demo.service\n")  # fmt: skip
    tree.process(4712, "bash", "/dev/null").process(4713, "vmm", "anon_inode:kvm-vm")
    with Daemon(bus, tree):
        assert busctl_json(bus.address, "call", NAME, PATH, MANAGER, "ListHolders", uid=NOBODY) == [
            [[4711, "qemu-system-x86", "nestd-guest-demo.service", "demo"], [4713, "vmm", "", ""]]
        ]


def test_kvm_that_does_not_answer_is_an_obstacle(bus: PrivateBus, tree: Tree, tools: Tools) -> None:
    tree.write("/.kernel/kvm-refuses", "13")
    with Daemon(bus, tree), Client(bus.address) as client:
        assert client.get("Obstacle") == "kvm-unusable"
        status = client.call("GetStatus")[0]
        assert (status["kvm-api"], status["guest-extension"]) == (-1, False)


def test_without_detect_virt_virtualization_is_empty(bus: PrivateBus, tree: Tree, tools: Tools) -> None:
    tools.without("systemd-detect-virt")
    with Daemon(bus, tree), Client(bus.address) as client:
        assert client.get("Virtualization") == ""


def test_status_is_read_anew_each_time(root: Client, tree: Tree) -> None:
    assert root.call("GetStatus")[0]["users"] == 0
    tree.write("/sys/module/kvm_amd/refcnt", "3\n")
    assert root.call("GetStatus")[0]["users"] == 3
