# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
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


# What nestd writes, and what it reads with trust, with its permissions.
WRITTEN = [(CONF, 0o644), ("/run/nestd/registry/demo.json", 0o600)]


def plant(tree: Path, absolute: str, spoil: str) -> Path:
    """A tree with the folder of `absolute`, one step on the way to it spoiled; returns that step."""
    (tree / absolute[1:]).parent.mkdir(parents=True)
    step, _, how = spoil.partition(" ")
    place = tree / "/".join(absolute.split("/")[1 : int(step) + 1])
    match how:
        case "link":
            place.rename(tree / "elsewhere")
            place.symlink_to(tree / "elsewhere")
        case "stranger":
            os.chown(place, 65534, 65534)
        case _:
            place.chmod(int(how, 8))
    return place


@pytest.mark.parametrize(
    "spoil", [f"{step} {how}" for step in "12" for how in ("link", "stranger", "775", "1777")]
)
@pytest.mark.parametrize(("absolute", "mode"), WRITTEN)
def test_a_folder_on_the_way_that_is_not_roots_is_refused_and_named(
    tmp_path: Path, absolute: str, mode: int, spoil: str
) -> None:
    root = Root(str(tmp_path))
    place = plant(tmp_path, absolute, spoil)
    held = sorted(path.name for path in tmp_path.rglob("*"))
    folder, _, _ = absolute.rpartition("/")
    for act in (
        lambda: files.replace(root, absolute, "x", mode, make_folder=True),
        lambda: files.make_folder(root, folder, 0o700),
        lambda: files.remove(root, absolute),
        lambda: files.read(root, absolute),
        lambda: files.names(root, folder),
    ):
        with pytest.raises(OSError, match=f"the folder /{place.relative_to(tmp_path)} ") as caught:
            act()
        assert caught.value.errno == (errno.ELOOP if "link" in spoil else errno.EPERM)
        assert caught.value.filename in {absolute, folder}
    assert sorted(path.name for path in tmp_path.rglob("*")) == held


@pytest.mark.parametrize(("absolute", "mode"), WRITTEN)
def test_a_planted_link_is_neither_written_to_nor_read(tmp_path: Path, absolute: str, mode: int) -> None:
    root = Root(str(tmp_path))
    victim = tmp_path / "victim"
    victim.write_text("mine")
    place = tmp_path / absolute[1:]
    place.parent.mkdir(parents=True)
    for target in (victim, tmp_path / "new"):
        place.symlink_to(target)
        acts: list[Callable[[], object]] = [
            lambda: files.replace(root, absolute, "x", mode),
            lambda: files.read(root, absolute),
        ]
        for act in acts:
            with pytest.raises(OSError, match="a symbolic link") as caught:
                act()
            assert (caught.value.errno, caught.value.filename) == (errno.ELOOP, absolute)
        place.unlink()
    assert victim.read_text() == "mine"
    assert not (tmp_path / "new").exists()


def test_what_is_read_with_trust_is_roots_own(tmp_path: Path, folder: Path) -> None:
    root = Root(str(tmp_path))
    assert files.read(root, CONF) is None
    assert files.read(root, "/no/such/folder/x") is None
    assert files.names(root, "/no/such/folder") == ()
    files.replace(root, CONF, "one \udcff")
    assert files.read(root, CONF) == "one \udcff"
    assert files.names(root, "/etc/modprobe.d") == ("zz-nestd.conf",)
    conf = folder / "zz-nestd.conf"
    conf.chmod(0o666)
    with pytest.raises(PermissionError, match="may be written to by others"):
        files.read(root, CONF)
    conf.chmod(0o644)
    os.chown(conf, 65534, 65534)
    with pytest.raises(PermissionError, match="belongs to uid 65534"):
        files.read(root, CONF)
    conf.unlink()
    os.mkfifo(conf)
    with pytest.raises(OSError, match="not a regular file"):
        files.read(root, CONF)
    conf.unlink()
    conf.write_text("x" * (1 << 20))
    assert files.read(root, CONF) == "x" * (1 << 20)
    conf.write_text("x" * (1 + (1 << 20)))
    with pytest.raises(OSError, match="too large") as caught:
        files.read(root, CONF)
    assert caught.value.errno == errno.EFBIG


@pytest.mark.usefixtures("strict_umask")
def test_folders_are_made_with_their_mode_whatever_the_umask(tmp_path: Path) -> None:
    root = Root(str(tmp_path))
    files.make_folder(root, "/run/nestd/registry", 0o700)
    files.make_folder(root, "/run/nestd/registry", 0o755)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert modes == {"run": 0o755, "nestd": 0o755, "registry": 0o700}
    files.replace(root, "/run/new/x", "x", make_folder=True)
    assert stat.S_IMODE((tmp_path / "run/new").stat().st_mode) == 0o755


@pytest.mark.parametrize(("absolute", "mode"), WRITTEN)
def test_the_mode_is_right_from_the_first_byte_on(tmp_path: Path, absolute: str, mode: int) -> None:
    """With umask 0, in a process that ends where it would begin to correct a mode: what is left tells."""
    script = (
        "import os, sys; from nestd.host import files, root\n"
        "os.umask(0); top = root.Root(sys.argv[1]); name = sys.argv[2]; mode = int(sys.argv[3])\n"
        "def end(event, arguments):\n"
        "    if event == 'os.chmod': os._exit(7)\n"
        "sys.addaudithook(end)\n"
        "if sys.argv[4] == 'folder': files.make_folder(top, os.path.dirname(name), 0o700)\n"
        "else: files.replace(top, name, 'x', mode)\n"
    )

    def left_by(what: str) -> None:
        argv = [sys.executable, "-c", script, str(tmp_path), absolute, str(mode), what]
        assert subprocess.run(argv, timeout=60, check=False).returncode == 7

    place = tmp_path / absolute[1:]
    place.parent.parent.mkdir(parents=True)
    left_by("folder")
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    left_by("file")
    left = (place.parent / f".{place.name}.nestd-new").stat()
    assert (stat.S_IMODE(left.st_mode), left.st_size) == (mode, 0)


def test_what_is_published_may_lie_in_a_strangers_folder(tmp_path: Path, folder: Path) -> None:
    root = Root(str(tmp_path))
    os.chown(folder, 65534, 65534)
    with pytest.raises(PermissionError, match="is not trusted"):
        files.replace(root, CONF, "one\n")
    files.publish(root, CONF, "one\n")
    assert stat.S_IMODE((folder / "zz-nestd.conf").stat().st_mode) == 0o644
    files.publish(root, CONF, "two\n")
    assert (folder / "zz-nestd.conf").read_text() == "two\n"
    for _ in range(2):
        files.withdraw(root, CONF)
        assert names(folder) == []


@pytest.mark.parametrize("place", ["zz-nestd.conf", ".zz-nestd.conf.nestd-new"])
def test_what_is_published_goes_through_no_link_and_into_no_file(
    tmp_path: Path, folder: Path, place: str
) -> None:
    """What the folder's owner may have laid there: a link to a file of another's, of either kind."""
    root = Root(str(tmp_path))
    victim = tmp_path / "victim"
    victim.write_text("mine")
    for lay in (Path.symlink_to, Path.hardlink_to):
        lay(folder / place, victim)
        with suppress(OSError):
            files.publish(root, CONF, "x")
        assert victim.read_text() == "mine"
        for name in names(folder):
            (folder / name).unlink()


def test_what_is_published_may_lie_in_the_first_folder_of_all(tmp_path: Path) -> None:
    root = Root(str(tmp_path))
    files.publish(root, "/nestd.prom", "one\n")
    assert (tmp_path / "nestd.prom").read_text() == "one\n"
    files.withdraw(root, "/nestd.prom")
    assert names(tmp_path) == []


def test_a_link_that_was_not_written_through_is_not_withdrawn(tmp_path: Path, folder: Path) -> None:
    root = Root(str(tmp_path))
    (folder / "zz-nestd.conf").symlink_to("elsewhere")
    with pytest.raises(OSError, match="a symbolic link"):
        files.publish(root, CONF, "x")
    with pytest.raises(OSError, match="a symbolic link"):
        files.withdraw(root, CONF)
    assert names(folder) == ["zz-nestd.conf"]
