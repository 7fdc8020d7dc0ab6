# SPDX-License-Identifier: LGPL-2.1-or-later
"""Guests, as far as no systemd is needed: what Launch refuses, and guests that do not exist."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.clients import BOB, NOBODY, Client, Variant
from tests.support.daemon import Daemon
from tests.support.polkitd import Polkitd, allow
from tests.support.privatebus import PrivateBus
from tests.support.tools import Tools
from tests.support.tree import Tree

pytestmark = pytest.mark.bus

OWN = "org.nestd1.Error."
INVALID = "org.freedesktop.DBus.Error.InvalidArgs"
ASK = "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"
DENIED = "org.freedesktop.DBus.Error.AccessDenied"


@pytest.mark.parametrize("name", ["demo", "", "x" * 300, "no such", "../../etc", "ü\n\x1b"])
def test_an_unknown_guest(bus: PrivateBus, daemon: Daemon, name: str) -> None:
    with Client(bus.address, NOBODY) as nobody:
        error = nobody.error("GetGuest", "s", [name])
        assert error.name in (OWN + "GuestNotFound", INVALID)
        if name == "demo":
            assert error.name == OWN + "GuestNotFound" and "demo" in error.text
        assert error.text.isprintable()


@pytest.mark.parametrize("path", ["/org/nestd1/guest/demo", "/org/nestd1/guest"])
def test_an_unknown_guests_object(root: Client, path: str) -> None:
    for member in ("Stop", "Kill", "OpenConsole"):
        signature, body = ("a{sv}", [{}]) if member == "Stop" else ("", list[Any]())
        error = root.error(member, signature, body, path=path, interface="org.nestd1.Guest")
        assert error.name in (
            OWN + "GuestNotFound",
            "org.freedesktop.DBus.Error.UnknownObject",
            "org.freedesktop.DBus.Error.UnknownMethod",
            "org.freedesktop.DBus.Error.UnknownInterface",
        )


WRONG: dict[str, tuple[str, dict[str, Any]]] = {
    "no unit name": ("../demo", {}),
    "an empty name": ("", {}),
    "a name too long": ("x" * 41, {}),
    "an unknown option": ("demo", {"memroy": Variant("t", 1 << 30)}),
    "a wrong type": ("demo", {"memory": Variant("s", "1G")}),
    "memory of nothing": ("demo", {"memory": Variant("t", 0)}),
    "a disk without a format": ("demo", {"disks": Variant("aa{sv}", [{"path": Variant("s", "/x")}])}),
    "a disk with a relative path": (
        "demo",
        {"disks": Variant("aa{sv}", [{"path": Variant("s", "x"), "format": Variant("s", "raw")}])},
    ),
    "a CPU that carries options": ("demo", {"cpu": Variant("s", "host,-svm")}),
    "a newline in append": (
        "demo",
        {"kernel": Variant("s", "/k"), "append": Variant("s", "quiet\nroot=/dev/sda")},
    ),
    "a network of no kind": ("demo", {"network": Variant("a{sv}", {"kind": Variant("s", "bridge")})}),
    "a network that is a word": ("demo", {"network": Variant("s", "user")}),
    "a wrong type in the network": ("demo", {"network": Variant("a{sv}", {"kind": Variant("b", True)})}),
    "a forward that is QEMU's": (
        "demo",
        {
            "network": Variant(
                "a{sv}",
                {"kind": Variant("s", "user"), "forwards": Variant("as", ["tcp::2222-:22,guestfwd=x"])},
            )
        },
    ),
    "too much user data": ("demo", {"user-data": Variant("ay", bytes((512 << 10) + 1))}),
    "user data as text": ("demo", {"user-data": Variant("s", "#cloud-config")}),
    "firmware of no kind": ("demo", {"firmware": Variant("s", "/usr/share/OVMF/OVMF.fd")}),
    "a user that does not exist": ("demo", {"user": Variant("s", "nobody-of-that-name")}),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_requests_are_refused(root: Client, what: str) -> None:
    name, given = WRONG[what]
    error = root.error("Launch", "sa{sv}", [name, given])
    assert error.name == INVALID
    assert error.text.isprintable() and len(error.text) > 20


def test_only_root_says_as_whom(bus: PrivateBus, daemon: Daemon) -> None:
    with Polkitd(bus, allow("org.nestd1.launch", uid=BOB)), Client(bus.address, BOB) as bob:
        error = bob.error("Launch", "sa{sv}", ["demo", {"user": Variant("s", "root")}])
        assert error.name == DENIED
        assert "Only root" in error.text


def test_launching_needs_its_own_authorization(bus: PrivateBus, daemon: Daemon) -> None:
    rules = allow("org.nestd1.set-runtime", "org.nestd1.set-boot", uid=BOB)
    with Polkitd(bus, rules), Client(bus.address, BOB) as bob:
        assert bob.error("Launch", "sa{sv}", ["demo", {}]).name == ASK


def test_with_nesting_off_nothing_is_started(root: Client) -> None:
    root.call("Disable", "a{sv}", [{}])
    error = root.error("Launch", "sa{sv}", ["demo", {}])
    assert error.name == OWN + "NestingOff"
    assert "enable" in error.text.lower()


def test_where_there_is_no_nesting(bus: PrivateBus, tree: Tree, tools: Tools) -> None:
    tree.amd(flags="fpu sse2 lm").gone("/sys/module/kvm_amd")
    with Daemon(bus, tree), Client(bus.address) as root:
        error = root.error("Launch", "sa{sv}", ["demo", {}])
        assert error.name == OWN + "NestingOff"
        assert "extension" in error.text, "the reason is in the CPU, not in a setting"


def test_without_systemd_or_qemu_it_says_what_is_missing(root: Client) -> None:
    """This bus has no systemd, and this tree neither QEMU nor the account nestd."""
    error = root.error("Launch", "sa{sv}", ["demo", {"user": Variant("s", "nobody")}])
    assert error.name == OWN + "LaunchFailed"
    assert len(error.text) > 20
    assert root.call("GetManagedObjects", interface="org.freedesktop.DBus.ObjectManager") is not None
    assert root.error("GetGuest", "s", ["demo"]).name == OWN + "GuestNotFound"
