# SPDX-License-Identifier: LGPL-2.1-or-later
"""Launch's options: what is taken, and what is refused with a reason."""

from __future__ import annotations

from typing import Any

import pytest

from nestd.errors import InvalidArgs
from nestd.guestmodel import Disk, GuestSpec
from nestd.guests.request import DISK_OPTIONS, OPTIONS, check_name, guest_spec


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
    )


def test_the_tables_are_the_models() -> None:
    of_spec = {field.replace("_", "-") for field in GuestSpec._fields} - {"name"}
    assert set(OPTIONS) == of_spec
    assert set(DISK_OPTIONS) == set(Disk._fields)


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
    ],
)
def test_what_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgs, match=words) as caught:
        guest_spec("demo", "alice", options)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400
