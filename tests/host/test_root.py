# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from nestd.host.root import Root


def test_path_is_below_the_top(tmp_path: Path) -> None:
    assert Root(str(tmp_path)).path("/proc/cpuinfo") == str(tmp_path / "proc/cpuinfo")
    assert Root().path("/proc/cpuinfo") == "/proc/cpuinfo"


@pytest.mark.parametrize("path", ["", "proc", "/../etc", "/a/..", "/a/../b", "/a\0b", ".."])
def test_path_refuses(path: str) -> None:
    with pytest.raises(ValueError, match="plain absolute path"):
        Root("/x").path(path)


def test_dots_in_a_name_are_fine(tmp_path: Path) -> None:
    assert Root(str(tmp_path)).read("/a..b/...") is None


def test_read(tmp_path: Path) -> None:
    root = Root(str(tmp_path))
    (tmp_path / "a").write_bytes(b"x\xff\xc3\xa4\n")
    assert root.read("/a") == "x\udcffä\n"
    assert root.read("/b") is None
    assert root.read("/a/b") is None
    with pytest.raises(IsADirectoryError):
        root.read("/")


def test_read_is_bounded(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate((16 << 20) + 1)
    with pytest.raises(OSError, match="large") as caught:
        Root(str(tmp_path)).read("/large")
    assert caught.value.errno == errno.EFBIG


def test_read_does_not_wait_for_a_fifo(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert Root(str(tmp_path)).read("/fifo") == ""


def test_a_link_in_a_circle_is_not_missing(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    root = Root(str(tmp_path))
    for ask in (root.read, root.names, root.exists):
        with pytest.raises(OSError, match="loop") as caught:
            ask("/loop")
        assert caught.value.errno == errno.ELOOP


def test_reads_what_proc_has() -> None:
    assert Root().read(f"/proc/{os.getpid()}/comm")


def test_names_files_link_exists(tmp_path: Path) -> None:
    root = Root(str(tmp_path))
    (tmp_path / "d/sub.conf").mkdir(parents=True)
    (tmp_path / "d/b").write_text("")
    (tmp_path / "d/a").symlink_to("b")
    (tmp_path / "d/dangling").symlink_to("nothing")
    (tmp_path / "d/masked").symlink_to("/dev/null")
    assert root.names("/d") == ("a", "b", "dangling", "masked", "sub.conf")
    assert root.files("/d") == ("a", "b", "masked")
    assert root.names("/none") == root.files("/none") == root.names("/d/b") == ()
    assert root.link("/d/a") == "b"
    assert root.link("/d/none") is None
    assert root.exists("/d") and root.exists("/d/a")
    assert not root.exists("/d/dangling") and not root.exists("/d/b/c")
