# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nestd.host import files
from nestd.host.root import Root
from nestd.text import modprobe

CONF = "/etc/modprobe.d/zz-nestd.conf"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "etc/modprobe.d"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def strict_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_replace_makes_and_replaces(tmp_path: Path, folder: Path) -> None:
    root = Root(str(tmp_path))
    files.replace(root, CONF, "one\n")
    first = (folder / "zz-nestd.conf").stat().st_ino
    files.replace(root, CONF, "two \udcff\n")
    assert (folder / "zz-nestd.conf").read_bytes() == b"two \xff\n"
    assert (folder / "zz-nestd.conf").stat().st_ino != first
    assert names(folder) == ["zz-nestd.conf"]


@pytest.mark.usefixtures("strict_umask")
@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_replace_gives_the_mode_whatever_the_umask(tmp_path: Path, folder: Path, mode: int) -> None:
    files.replace(Root(str(tmp_path)), CONF, "x", mode)
    assert stat.S_IMODE((folder / "zz-nestd.conf").stat().st_mode) == mode


def test_replace_follows_no_link(tmp_path: Path, folder: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (folder / "zz-nestd.conf").symlink_to(victim)
    with pytest.raises(OSError, match=r"zz-nestd.conf") as caught:
        files.replace(Root(str(tmp_path)), CONF, "x")
    assert caught.value.errno == errno.ELOOP
    assert victim.read_text() == "mine"
    assert names(folder) == ["zz-nestd.conf"]


def test_replace_refuses_what_is_no_file(tmp_path: Path, folder: Path) -> None:
    (folder / "zz-nestd.conf").mkdir()
    with pytest.raises(FileExistsError):
        files.replace(Root(str(tmp_path)), CONF, "x")
    assert names(folder) == ["zz-nestd.conf"]


def test_replace_refuses_a_folder_that_is_a_link(tmp_path: Path, folder: Path) -> None:
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="modprobe"):
        files.replace(Root(str(tmp_path)), CONF, "x", make_folder=True)
    assert names(tmp_path / "elsewhere") == []


def test_replace_makes_the_folder_only_if_asked(tmp_path: Path) -> None:
    root = Root(str(tmp_path))
    (tmp_path / "etc").mkdir()
    with pytest.raises(FileNotFoundError):
        files.replace(root, CONF, "x")
    files.replace(root, CONF, "x", make_folder=True)
    files.replace(root, CONF, "y", make_folder=True)
    assert root.read(CONF) == "y"
    with pytest.raises(FileNotFoundError):
        files.replace(root, "/no/such/file", "x", make_folder=True)


def test_replace_is_not_hindered_by_what_a_crash_left(tmp_path: Path, folder: Path) -> None:
    root = Root(str(tmp_path))
    victim = tmp_path / "victim"
    victim.write_text("mine")
    left = folder / ".zz-nestd.conf.nestd-new"
    left.symlink_to(victim)
    assert modprobe.search({"/etc/modprobe.d": names(folder)}) == ()
    files.replace(root, CONF, "x")
    assert names(folder) == ["zz-nestd.conf"]
    assert victim.read_text() == "mine"


def test_a_failed_replace_leaves_the_old_file_and_nothing_else(tmp_path: Path, folder: Path) -> None:
    """The disk is full after 64 bytes (RLIMIT_FSIZE), in a process of its own."""
    (folder / "zz-nestd.conf").write_text("old")
    script = (
        "import resource, signal, sys; from nestd.host import files, root\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))\n"
        "try: files.replace(root.Root(sys.argv[1]), sys.argv[2], 'x' * 100)\n"
        "except OSError as error: sys.exit(error.errno)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path), CONF], timeout=60, check=False)
    assert done.returncode == errno.EFBIG
    assert (folder / "zz-nestd.conf").read_text() == "old"
    assert names(folder) == ["zz-nestd.conf"]


def test_remove(tmp_path: Path, folder: Path) -> None:
    root = Root(str(tmp_path))
    files.replace(root, CONF, "x")
    files.remove(root, CONF)
    assert names(folder) == []
    files.remove(root, CONF)
    folder.rmdir()
    files.remove(root, CONF)


def test_remove_takes_the_link_and_not_what_it_points_to(tmp_path: Path, folder: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (folder / "zz-nestd.conf").symlink_to(victim)
    files.remove(Root(str(tmp_path)), CONF)
    assert names(folder) == []
    assert victim.read_text() == "mine"


def test_remove_refuses_a_folder(tmp_path: Path, folder: Path) -> None:
    (folder / "zz-nestd.conf").mkdir()
    with pytest.raises(IsADirectoryError):
        files.remove(Root(str(tmp_path)), CONF)
