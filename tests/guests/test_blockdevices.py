# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which files of a guest are block devices, and which are somebody's trick."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from nestd.guestmodel import Disk, GuestSpec, Overlay
from nestd.guests import blockdevices
from nestd.host.root import Root


@pytest.fixture
def root(tmp_path: Path) -> Root:
    for folder in ("dev/disk/by-id", "dev/mapper", "dev/shm", "dev/theirs", "home"):
        (tmp_path / folder).mkdir(parents=True)
    os.mknod(tmp_path / "dev/sdb", stat.S_IFBLK | 0o600, os.makedev(8, 16))
    os.mknod(tmp_path / "dev/sr0", stat.S_IFBLK | 0o600, os.makedev(11, 0))
    os.mknod(tmp_path / "dev/vhost-net", stat.S_IFCHR | 0o600, os.makedev(10, 238))
    (tmp_path / "dev/disk/by-id/x").symlink_to("../../sdb")
    (tmp_path / "dev/mapper/vg-lv").symlink_to("../sdb")
    (tmp_path / "dev/mapper/gone").symlink_to("../nothing")
    (tmp_path / "dev/link").symlink_to("shm")
    for folder in ("dev/shm", "dev/theirs"):
        (tmp_path / folder / "x").symlink_to("../sdb")
    (tmp_path / "dev/shm").chmod(0o1777)
    os.chown(tmp_path / "dev/theirs", 1000, 1000)
    (tmp_path / "home/x").symlink_to("../dev/sdb")
    return Root(str(tmp_path))


def _disks(*paths: str) -> GuestSpec:
    return GuestSpec("demo", "x", disks=tuple(Disk(path, "raw") for path in paths))


def test_nodes_and_roots_links_to_them(root: Root) -> None:
    paths = ("/dev/sdb", "/dev/disk/by-id/x", "/dev/mapper/vg-lv", "/dev//sdb")
    assert blockdevices.find(root, _disks(*paths)) == dict.fromkeys(paths, "/dev/block/8:16")


def test_the_cd_and_what_a_disk_is_based_on(root: Root) -> None:
    spec = GuestSpec("demo", "x", cdrom="/dev/sr0", overlays=(Overlay("/var/o", "/dev/sdb", "raw"),))
    assert blockdevices.find(root, spec) == {"/dev/sr0": "/dev/block/11:0", "/dev/sdb": "/dev/block/8:16"}


@pytest.mark.parametrize(
    "path",
    [
        "/dev/vhost-net",
        "/dev/nothing",
        "/dev/mapper/gone",
        "/dev/mapper",
        "/dev/sdb/x",
        "/dev/shm/x",
        "/dev/theirs/x",
        "/dev/link/x",
        "/dev/../home/x",
        "/dev/shm/../sdb",
        "/home/x",
    ],
)
def test_nothing_else(root: Root, path: str) -> None:
    assert blockdevices.find(root, _disks(path)) == {}
