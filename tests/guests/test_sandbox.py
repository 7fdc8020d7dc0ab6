# SPDX-License-Identifier: LGPL-2.1-or-later
"""The unit's properties, as the bus will carry them."""

from __future__ import annotations

from pathlib import Path

import pytest

from nestd.errors import LaunchFailed
from nestd.guestmodel import Disk, GuestSpec
from nestd.guests import emulator, places, sandbox
from nestd.host.accounts import Account
from nestd.host.root import Root
from nestd.wire import body
from nestd.wire.library import Variant

ALICE = Account("DOMAIN\\alice", 1001, 1002)


def _properties(spec: GuestSpec, kvm_group: bool = True) -> dict[str, object]:
    argv = ["/usr/bin/qemu", "-append", "a$b"]
    made = sandbox.properties(spec, ALICE, argv, kvm_group)
    names = [name for name, _ in made if name != "SystemCallFilter"]  # which adds up
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


def test_only_what_has_to_be_written_is_writable() -> None:
    disks = (Disk("/d/rw", "raw"), Disk("/d/ro", "raw", readonly=True))
    assert _properties(GuestSpec("demo", "x", disks=disks))["ReadWritePaths"] == ["-/d/rw"]
    overlaid = (*disks, Disk("/d/snapshot", "qcow2", snapshot=True))
    assert _properties(GuestSpec("demo", "x", disks=overlaid))["ReadWritePaths"] == ["-/d/rw", "/var/tmp"]


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
        emulator.find(root, "/bin::relative")
    for place in ("/usr/libexec/qemu-kvm", "/bin/qemu-kvm", "/bin/qemu-system-x86_64"):
        program = Path(root.path(place))
        program.parent.mkdir(parents=True, exist_ok=True)
        program.touch()
        program.chmod(0o755)
        assert emulator.find(root, "/bin::relative") == str(program)
    program.chmod(0o644)
    assert emulator.find(root, "/bin") == root.path("/bin/qemu-kvm")
