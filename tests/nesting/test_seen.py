# SPDX-License-Identifier: LGPL-2.1-or-later
"""What was seen in an initramfs: remembered until it changes, over restarts; not believed from strangers."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nestd.host.commands import Commands
from nestd.host.initramfs import Image
from nestd.host.machine import Host
from nestd.host.root import Root
from nestd.nesting import seen
from nestd.nesting.boot import Configuration
from tests.support import initramfs, loop
from tests.support.initramfs import DRIVER, image
from tests.support.tree import RELEASE, Tree

IMAGE, OLD = f"/boot/initrd.img-{RELEASE}", 1_700_000_000_000_000_000
FAT = 2_000_000_000  # ns between two of its times
RECORD = "/var/lib/nestd/images"
OPTION = "options kvm_amd nested=0\n# \udcff\n"
FOUND = Image(IMAGE, ("kvm_amd",), (("/etc/modprobe.d/a.conf", OPTION),), "", "dracut")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path).amd()
    image(tree, IMAGE, "dracut", {DRIVER: "", "etc/modprobe.d/a.conf": OPTION})
    os.utime(tree.path(IMAGE), ns=(OLD, OLD))
    return tree


def look(host: Host, path: str = IMAGE) -> Image:
    return loop.run(seen.look(host, path))


def again(host: Host) -> Host:
    """The same machine after a restart of nestd, on which nothing can be looked into any more."""
    return host._replace(root=Root(host.root.path("/")), commands=Commands("/nowhere"))


def test_opened_once(tree: Tree) -> None:
    host = initramfs.host(tree)
    assert not seen.anything(host.root) and seen.known(host.root, IMAGE) is None
    assert look(host) == FOUND
    assert look(again(host)) == FOUND == seen.known(Root(str(tree.top)), IMAGE)
    assert tree.path(RECORD).stat().st_mode & 0o777 == 0o600
    assert tree.path("/var/lib/nestd").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(path.read_bytes() + b"x"),
        lambda path: os.utime(path, ns=(OLD + 1, OLD + 1)),
        lambda path: path.unlink(),
    ],
)
def test_not_when_it_has_changed(tree: Tree, change: Callable[[Path], Any]) -> None:
    host = initramfs.host(tree)
    look(host)
    change(tree.path(IMAGE))
    assert seen.known(host.root, IMAGE) is None
    assert look(again(host)).doubt


@pytest.mark.parametrize("young", [True, False])
def test_a_file_system_that_makes_up_inodes(tree: Tree, young: bool) -> None:
    path = tree.path(IMAGE)
    if young:
        os.utime(path)
    host = initramfs.host(tree)
    look(host)
    other = path.with_name("x")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(path.stat().st_mtime_ns,) * 2)
    other.replace(path)
    assert (seen.known(again(host).root, IMAGE) is None) == young


def test_a_young_one_on_fat_is_looked_into_when_it_is_older(tree: Tree) -> None:
    """A change makes one on the EFI system partition, and looks into it at once; then comes the reboot."""
    made = time.time_ns() // FAT * FAT
    os.utime(tree.path(IMAGE), ns=(made, made))
    assert look(initramfs.host(tree)) == FOUND
    assert time.time_ns() - made > 2 * FAT
    copy = tree.path(IMAGE).with_name("copy")
    shutil.copy2(tree.path(IMAGE), copy)
    copy.rename(tree.path(IMAGE))  # another inode, the same time
    assert seen.known(again(initramfs.host(tree)).root, IMAGE) == FOUND


def test_a_doubt_is_not_remembered(tree: Tree) -> None:
    host = initramfs.host(tree)
    assert look(again(host)).doubt and not seen.anything(host.root)
    assert look(host) == FOUND


def test_what_is_gone_is_dropped(tree: Tree) -> None:
    host = initramfs.host(tree)
    look(host)
    tree.path(IMAGE).rename(tree.path("/boot/other"))
    assert look(host, "/boot/other") == FOUND._replace(path="/boot/other")
    assert list(json.loads(tree.read(RECORD))) == ["/boot/other"]


def test_no_more_than_some(tree: Tree) -> None:
    host = initramfs.host(tree)
    look(host)
    record = json.loads(tree.read(RECORD))
    many = {f"/boot/{number}": record[IMAGE] for number in range(100)}
    for path in many:
        tree.write(path, "")
    tree.write(RECORD, json.dumps(many)).path(RECORD).chmod(0o600)
    look(host)
    kept = list(json.loads(tree.read(RECORD)))
    assert len(kept) == 64 and kept[-1] == IMAGE and kept[0] == "/boot/37"


def test_what_says_too_much_is_not_remembered(tree: Tree) -> None:
    host = initramfs.host(tree)
    image(tree, IMAGE, "dracut", {DRIVER: "", "etc/modprobe.d/a.conf": "# kvm\n" * 3000})
    assert len(look(host).files[0][1]) == 18000
    assert not seen.anything(host.root)


@pytest.mark.parametrize(
    "record",
    [
        "",
        "{",
        "[]",
        '{"/boot/x": 1}',
        '{"/boot/x": {"mark": [1, 2, 3], "maker": "", "modules": [], "files": {}}}',
        '{"/boot/x": {"mark": [1, 2, 3, true], "maker": "", "modules": [1], "files": {}}}',
        '{"../x": {"mark": [1, 2, 3, true], "maker": "", "modules": [], "files": {}}}',
        '{"/a/../x": {"mark": [1, 2, 3, true], "maker": "", "modules": [], "files": {}}}',
        "[" * 100_000,
    ],
)
def test_a_record_that_makes_no_sense(tree: Tree, record: str) -> None:
    host = initramfs.host(tree)
    tree.write(RECORD, record).path("/var/lib/nestd").chmod(0o700)
    assert seen.known(host.root, "/boot/x") is None
    assert tree.read(f"{RECORD}.broken") == record
    assert look(host) == FOUND == look(again(host))


def test_a_record_of_a_stranger(tree: Tree, capfd: pytest.CaptureFixture[str]) -> None:
    host = initramfs.host(tree)
    look(host)
    text = tree.read(RECORD)
    os.chown(tree.path(RECORD), 1000, 1000)
    for _ in range(3):
        assert seen.known(again(host).root, IMAGE) is None
    root = Root(str(tree.top))
    capfd.readouterr()
    assert (seen.known(root, IMAGE), seen.known(root, IMAGE)) == (None, None)
    assert capfd.readouterr().err.count("is not trusted") == 1
    assert tree.read(RECORD) == text


def test_where_nothing_can_be_kept(tree: Tree, capfd: pytest.CaptureFixture[str]) -> None:
    host = initramfs.host(tree)
    tree.write("/var/lib/nestd", "no folder")
    assert look(host) == FOUND
    assert "cannot be remembered" in capfd.readouterr().err


class Counting(Root):
    """A root that remembers which paths were asked for."""

    def __init__(self, top: str) -> None:
        super().__init__(top)
        self.asked: list[str] = []

    def path(self, absolute: str) -> str:
        self.asked.append(absolute)
        return super().path(absolute)


def test_a_reading_costs_a_stat_or_two(tree: Tree) -> None:
    """Configuration.read is on the path of every status, and of the start."""
    root = Counting(str(tree.top))
    assert Configuration.read(root).image is None
    assert [path for path in root.asked if path in (IMAGE, RECORD)] == [RECORD]
    look(initramfs.host(tree))
    assert Configuration.read(root).image == FOUND
    root.asked.clear()
    assert Configuration.read(root).image == FOUND
    # Whether it is there, its mark, and the record's; neither is opened.
    names = [path for path in root.asked if path in (IMAGE, RECORD)]
    assert (names.count(IMAGE), names.count(RECORD)) == (2, 2)
