# SPDX-License-Identifier: LGPL-2.1-or-later
"""The unit's properties, as the bus will carry them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nestd.errors import LaunchFailed
from nestd.guestmodel import Disk, GuestSpec, Network
from nestd.guests import places, programs, sandbox
from nestd.host.accounts import Account
from nestd.host.root import Root
from nestd.wire import body
from nestd.wire.library import Variant

ALICE = Account("DOMAIN\\alice", 1001, 1002)


def _properties(spec: GuestSpec, kvm_group: bool = True) -> dict[str, Any]:
    argv = ["/usr/bin/qemu", "-append", "a$b"]
    made = sandbox.properties(spec, ALICE, argv, kvm_group)
    names = [name for name, _ in made if name not in ("SystemCallFilter", "TemporaryFileSystem")]  # add up
    assert len(set(names)) == len(names)
    return {name: value.value for name, value in made}


def test_the_guest_gets_its_users_rights_and_kvm() -> None:
    got = _properties(GuestSpec("demo", "x", memory=1 << 30, vcpus=4))
    assert (got["User"], got["Group"], got["SupplementaryGroups"]) == ("1001", "1002", ["kvm"])
    assert got["ExecStart"] == [["/usr/bin/qemu", ["/usr/bin/qemu", "-append", "a$$b"], False]]
    assert got["DeviceAllow"] == [["/dev/kvm", "rw"]]
    assert (got["CapabilityBoundingSet"], got["NoNewPrivileges"]) == (0, True)
    assert got["MemoryMax"] == (1 << 30) + (128 << 20) + (512 << 20)
    assert got["TasksMax"] == 132
    assert got["RuntimeDirectory"] == ["nestd/guests/demo"]
    assert _properties(GuestSpec("demo", "x"), kvm_group=False)["SupplementaryGroups"] == []
    assert "RuntimeMaxUSec" not in got
    assert _properties(GuestSpec("demo", "x", lifetime=90))["RuntimeMaxUSec"] == 90_000_000


def test_only_what_has_to_be_written_is_writable() -> None:
    disks = (Disk("/d/rw", "raw"), Disk("/d/ro", "raw", readonly=True))
    assert _properties(GuestSpec("demo", "x", disks=disks))["ReadWritePaths"] == ["-/d/rw"]
    overlaid = (*disks, Disk("/d/snapshot", "qcow2", snapshot=True))
    assert _properties(GuestSpec("demo", "x", disks=overlaid))["ReadWritePaths"] == ["-/d/rw", "/var/tmp"]


def test_devices_are_let_through_as_far_as_they_are_used() -> None:
    disks = (
        Disk("/dev/a", "raw"),
        Disk("/dev/b", "raw", readonly=True),
        Disk("/dev/c", "raw", snapshot=True),
    )
    spec = GuestSpec("demo", "x", disks=disks, cdrom="/dev/sr0")
    found = {path: f"/dev/block/{path[5:]}" for path in ("/dev/a", "/dev/b", "/dev/c", "/dev/sr0")}
    made = sandbox.properties(spec, ALICE, ["/q"], kvm_group=False, devices=found)
    got = {name: value.value for name, value in made}
    let = {
        "/dev/kvm": "rw",
        "/dev/block/a": "rw",
        "/dev/block/b": "r",
        "/dev/block/c": "r",
        "/dev/block/sr0": "r",
    }
    assert got["DevicePolicy"] == "closed" and dict(got["DeviceAllow"]) == let
    assert got["ReadWritePaths"] == ["/var/tmp"]


def _all(spec: GuestSpec, name: str) -> list[Any]:
    """What a property that adds up is told, in its order."""
    made = sandbox.properties(spec, ALICE, ["/q"], kvm_group=False)
    return [value.value for told, value in made if told == name]


@pytest.mark.parametrize("network", [Network(), Network("lab", lab="two")])
def test_without_a_network_of_its_own_nothing_is_reached(network: Network) -> None:
    spec = GuestSpec("demo", "x", network=network)
    got = _properties(spec)
    assert got["PrivateNetwork"] is True
    assert got["RestrictAddressFamilies"] == [True, ["AF_UNIX"]]
    assert [False, ["connect"]] in _all(spec, "SystemCallFilter")
    assert ("StandardInputFileDescriptor" in got) is (network.kind == "lab")
    assert "BindPaths" not in got


def test_with_a_network_unix_sockets_are_hidden_instead() -> None:
    spec = GuestSpec("demo", "x", network=Network("user"), disks=(Disk("/home/d", "raw"),))
    got = _properties(spec)
    assert got["PrivateNetwork"] is False
    assert got["RestrictAddressFamilies"] == [True, ["AF_UNIX", "AF_INET", "AF_INET6"]]
    assert not any("connect" in names for _, names in _all(spec, "SystemCallFilter"))
    hidden = [path for told in _all(spec, "TemporaryFileSystem") for path, _ in told]
    assert hidden == ["/run/nestd/console", "/run", "/tmp"]
    assert [own for own, _, optional, _ in got["BindPaths"] if not optional] == ["/run/nestd/guests/demo"]


@pytest.mark.parametrize(
    "where",
    [
        {"disks": (Disk("/tmp/d", "raw"),)},
        {"kernel": "/tmp/k"},
        {"kernel": "/k", "initrd": "/tmp/i"},
        {"cdrom": "/tmp/c.iso"},
    ],
)
def test_a_guest_with_a_network_finds_its_files_in_tmp(where: dict[str, Any]) -> None:
    spec = GuestSpec("demo", "x", network=Network("user"), **where)
    hidden = [path for told in _all(spec, "TemporaryFileSystem") for path, _ in told]
    assert "/tmp" not in hidden
    assert {"-/tmp/.X11-unix", "-/tmp/tmux-1001"} <= set(_properties(spec)["InaccessiblePaths"])


def test_what_runs_before_qemu_and_what_it_is_told() -> None:
    spec = GuestSpec("demo", "x")
    made = sandbox.properties(
        spec, ALICE, ["/q"], False, [("/bin/cp", "a$$b", "${X}")], {"user-data": "/run/x"}
    )
    got = {name: value.value for name, value in made}
    assert got["ExecStartPre"] == [["/bin/cp", ["/bin/cp", "a$$b", "${X}"], False]]
    assert got["LoadCredential"] == [["user-data", "/run/x"]]


def test_every_value_fits_its_signature() -> None:
    for name, value in sandbox.properties(GuestSpec("demo", "x"), ALICE, ["/q"], kvm_group=True):
        assert isinstance(value, Variant)
        assert body.marshal("(sv)", [[name, value]])


def test_names_of_units() -> None:
    assert places.unit("a.b-1") == "nestd-guest-a.b-1.service"
    assert places.name_of(places.unit("a.b-1")) == "a.b-1"


def test_where_qemu_is(tmp_path: object) -> None:
    root = Root(str(tmp_path))
    with pytest.raises(LaunchFailed, match="qemu-system-x86_64 is not installed"):
        programs.find(root, "/bin::relative", programs.QEMU)
    for place in ("/usr/libexec/qemu-kvm", "/bin/qemu-kvm", "/bin/qemu-system-x86_64"):
        program = Path(root.path(place))
        program.parent.mkdir(parents=True, exist_ok=True)
        program.touch()
        program.chmod(0o755)
        assert programs.find(root, "/bin::relative", programs.QEMU) == str(program)
    program.chmod(0o644)
    assert programs.find(root, "/bin", programs.QEMU) == root.path("/bin/qemu-kvm")
