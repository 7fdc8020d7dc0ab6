# SPDX-License-Identifier: LGPL-2.1-or-later
"""Launch's options: what is taken, and what is refused with a reason."""

from __future__ import annotations

from typing import Any

import pytest

from nestd.errors import InvalidArgs
from nestd.guestmodel import Disk, Forward, GuestSpec, Network
from nestd.guests.devices import DISK_OPTIONS, NETWORK_OPTIONS
from nestd.guests.request import OPTIONS, check_name, guest_spec


def test_the_defaults() -> None:
    assert guest_spec("demo", "alice", {}) == GuestSpec("demo", "alice")


def test_everything_at_once() -> None:
    options: dict[str, Any] = {
        "cpu": "EPYC-v3",
        "cpu-features": ["+npt", "-avx512-vpopcntdq", "+sse4.1"],
        "memory": 1 << 30,
        "vcpus": 4,
        "disks": [
            {"path": "/d/a,b c.img", "format": "raw"},
            {"path": "/d/b", "format": "qcow2", "readonly": True, "snapshot": True},
        ],
        "kernel": "/boot/k",
        "initrd": "/boot/i",
        "append": "console=ttyS0",
        "user": "alice",
        "require-nesting": False,
        "cdrom": "/d/a,b.iso",
        "firmware": "uefi",
        "network": {"kind": "user", "forwards": ["tcp:127.0.0.1:2222-22", "udp:0.0.0.0:5353-53", "8080-80"]},
        "display": "vnc",
        "user-data": b"#cloud-config\n\xff\0",
        "extra-args": ["-rtc", "base=utc", ""],
    }
    assert set(options) == set(OPTIONS)
    assert guest_spec("demo", "alice", options) == GuestSpec(
        name="demo",
        user="alice",
        cpu="EPYC-v3",
        cpu_features=("+npt", "-avx512-vpopcntdq", "+sse4.1"),
        memory=1 << 30,
        vcpus=4,
        disks=(Disk("/d/a,b c.img", "raw"), Disk("/d/b", "qcow2", readonly=True, snapshot=True)),
        kernel="/boot/k",
        initrd="/boot/i",
        append="console=ttyS0",
        require_nesting=False,
        cdrom="/d/a,b.iso",
        firmware="uefi",
        network=Network(
            "user",
            (
                Forward("tcp", "127.0.0.1", 2222, 22),
                Forward("udp", "0.0.0.0", 5353, 53),
                Forward("tcp", "127.0.0.1", 8080, 80),
            ),
        ),
        display="vnc",
        user_data=b"#cloud-config\n\xff\0",
        extra_args=("-rtc", "base=utc", ""),
    )


def test_a_lab() -> None:
    options = {"network": {"kind": "lab", "lab": "two"}}
    assert guest_spec("demo", "alice", options).network == Network("lab", lab="two")


def test_the_tables_are_the_models() -> None:
    # The others are what labs and Verify need, as are a network's MAC and address.
    of_spec = {field.replace("_", "-") for field in GuestSpec._fields} - {
        "name",
        "overlays",
        "state",
        "lifetime",
    }
    assert set(OPTIONS) == of_spec
    assert set(DISK_OPTIONS) == set(Disk._fields)
    assert set(NETWORK_OPTIONS) == set(Network._fields) - {"mac", "address"}


@pytest.mark.parametrize("name", ["a", "0", "demo-1.x_Y", "x" * 40])
def test_names(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "-a", "_a", "a/b", "a b", "a\n", "x" * 41, "é", "a@b", "a\0", "\x1b[31m"]
)
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(InvalidArgs, match="no name for a guest") as caught:
        check_name(name)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cpus": 2}, "'cpus' is no option of Launch: there are cpu, cpu-features"),
        ({"cpu": ""}, "no CPU model"),
        ({"cpu": "host,+svm"}, "flags go into cpu-features"),
        ({"cpu": "-S"}, "no CPU model"),
        ({"cpu": "x\n"}, "no CPU model"),
        ({"cpu-features": ["svm"]}, r"'svm' in cpu-features is neither \+flag nor -flag"),
        ({"cpu-features": ["+svm,-x"]}, "neither"),
        ({"cpu-features": ["+"]}, "neither"),
        ({"cpu-features": ["+svm=off"]}, "neither"),
        ({"cpu-features": ["+svm"] * 257}, "at most 256"),
        ({"memory": 0}, "memory must be from 16777216 to"),
        ({"memory": (16 << 20) - 1}, "memory"),
        ({"memory": (1 << 64) - 1}, "memory"),
        ({"vcpus": 0}, "vcpus must be from 1 to 255, not 0"),
        ({"vcpus": 256}, "vcpus"),
        ({"disks": [{}]}, "a disk's path must be an absolute path"),
        ({"disks": [{"path": "/d"}]}, "needs its format, raw or qcow2, not ''"),
        ({"disks": [{"path": "/d", "format": "vmdk"}]}, "never guessed"),
        ({"disks": [{"path": "d", "format": "raw"}]}, "absolute"),
        ({"disks": [{"path": "/d\n", "format": "raw"}]}, "control characters, not '/d.n'"),
        ({"disks": [{"path": "/d\0", "format": "raw"}]}, "control characters"),
        ({"disks": [{"path": "/" + "d" * 4095, "format": "raw"}]}, "absolute"),
        ({"disks": [{"path": "/d", "format": "raw", "cache": "none"}]}, "'cache' is no option of a disk"),
        ({"disks": [{"path": "/d", "format": "raw"}] * 25}, "at most 24 disks"),
        ({"kernel": "vmlinuz"}, "kernel must be an absolute path"),
        ({"kernel": "/k", "initrd": "../i"}, "initrd must be an absolute path"),
        ({"initrd": "/i"}, "initrd goes with a kernel"),
        ({"append": "x"}, "append goes with a kernel"),
        ({"kernel": "/k", "append": "a\nb"}, "one line"),
        ({"kernel": "/k", "append": "a" * 2048}, "at most 2047 bytes"),
        ({"cdrom": "x.iso"}, "cdrom must be an absolute path"),
        ({"firmware": "UEFI"}, "firmware must be one of bios, uefi, not 'UEFI'"),
        ({"display": "unix:/tmp/x"}, "display must be one of none, vnc"),
        ({"user-data": bytes((512 << 10) + 1)}, "at most 524288 reach the guest"),
        ({"extra-args": ["-a\n"]}, "Each of extra-args must be one line"),
        ({"extra-args": ["a" * 4096]}, "Each of extra-args"),
        ({"extra-args": [""] * 257}, "at most 256 arguments"),
        ({"network": {"kind": "bridge"}}, "kind of network must be one of none, user, lab"),
        ({"network": {"bridge": "br0"}}, "'bridge' is no option of network: there are kind"),
        ({"network": {"forwards": ["1024-1"]}}, "of the kind user, and to no other"),
        ({"network": {"kind": "lab", "lab": "a", "forwards": ["1024-1"]}}, "kind user"),
        ({"network": {"kind": "lab"}}, "needs the lab's name, not ''"),
        ({"network": {"kind": "lab", "lab": "a,fd=1"}}, "needs the lab's name"),
        ({"network": {"kind": "user", "lab": "a"}}, "lab goes with a network of the kind lab"),
    ],
)
def test_what_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgs, match=words) as caught:
        guest_spec("demo", "alice", options)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("forward", "words"),
    [
        ("", "no forwarded port: write tcp:127.0.0.1:2222-22"),
        ("2222", "no forwarded port"),
        ("2222-", "no forwarded port"),
        ("sctp:2222-22", "no forwarded port"),
        ("TCP:2222-22", "no forwarded port"),
        ("tcp::2222-22", "no forwarded port"),
        ("tcp:localhost:2222-22", "no forwarded port"),
        ("tcp:127.0.0.256:2222-22", "no forwarded port"),
        ("tcp:127.0.0.1:2222-22,hostfwd=tcp::80-:80", "no forwarded port"),
        ("2222-22\n", "no forwarded port"),
        ("\u0662222-22", "no forwarded port"),
        ("1023-22", "Ports below 1024 are root's"),
        ("0-22", "Ports below 1024"),
        ("65536-22", "A forwarded port must be from 1024 to 65535, not 65536"),
        ("2222-0", "A guest's port must be from 1 to 65535, not 0"),
    ],
)
def test_forwards_that_are_none(forward: str, words: str) -> None:
    with pytest.raises(InvalidArgs, match=words) as caught:
        guest_spec("demo", "alice", {"network": {"kind": "user", "forwards": [forward]}})
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("forwards", "words"),
    [
        (["tcp:2222-22", "tcp:127.0.0.1:2222-23"], "tcp:127.0.0.1:2222 is forwarded twice"),
        ([f"{port}-22" for port in range(2000, 2065)], "At most 64 ports"),
    ],
)
def test_forwards_that_do_not_go_together(forwards: list[str], words: str) -> None:
    with pytest.raises(InvalidArgs, match=words):
        guest_spec("demo", "alice", {"network": {"kind": "user", "forwards": forwards}})
