# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from nestd import tasks
from nestd.host.root import Root
from nestd.host.watch import FolderWatch
from tests.support import loop

# Seconds: longer than a change takes to be told.
QUIET = 0.3


class Changes:
    """Counts the calls, and waits for them."""

    def __init__(self) -> None:
        self.count = 0
        self._one = tasks.Event()

    def __call__(self) -> None:
        self.count += 1
        self._one.set()

    async def told(self) -> None:
        """Wait for the next, 10 s at most."""
        async with tasks.timeout(10):
            await self._one.wait()
        self._one.clear()


def steps(top: Path, folders: list[str], *actions: tuple[Callable[[], object], bool]) -> None:
    """Each action is told, or not told, before the next."""

    async def main() -> None:
        changes = Changes()
        watch = FolderWatch(Root(str(top)), folders, changes)
        watch.start()
        for action, expected in actions:
            before = changes.count
            action()
            if expected:
                await changes.told()
            else:
                await tasks.sleep(QUIET)
                assert changes.count == before
        watch.close()

    loop.run(main())


def test_what_happens_in_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "etc/modprobe.d"
    folder.mkdir(parents=True)
    steps(
        tmp_path,
        ["/etc/modprobe.d"],
        (lambda: (folder / "a").write_text("x"), True),
        (lambda: (folder / "a").write_text("y"), True),
        ((folder / "a").read_bytes, False),
        (lambda: (folder / "a").rename(folder / "b"), True),
        (lambda: (folder / "l").symlink_to("b"), True),
        ((folder / "b").unlink, True),
        (lambda: (tmp_path / "etc/other").write_text("x"), False),
    )


def test_a_folder_that_comes_and_goes(tmp_path: Path) -> None:
    folder = tmp_path / "a/b/c"
    steps(
        tmp_path,
        ["/a/b/c"],
        ((tmp_path / "a").mkdir, False),
        (lambda: (tmp_path / "a/x").write_text("x"), False),
        (lambda: folder.mkdir(parents=True), True),
        (lambda: (folder / "f").write_text("x"), True),
        (lambda: folder.rename(tmp_path / "a/b/moved"), True),
        (lambda: (tmp_path / "a/b/moved/f").write_text("x"), False),
        (lambda: (tmp_path / "a/b/moved").rename(folder), True),
        (lambda: shutil.rmtree(tmp_path / "a"), True),
        (lambda: folder.mkdir(parents=True), True),
        (lambda: (folder / "f").write_text("x"), True),
    )


def test_a_link_that_leads_to_itself_for_a_while(tmp_path: Path) -> None:
    folder = tmp_path / "a/b"
    folder.mkdir(parents=True)

    def break_it() -> None:
        folder.rmdir()
        folder.symlink_to("b")

    def mend_it() -> None:
        folder.unlink()
        folder.mkdir()

    steps(
        tmp_path,
        ["/a/b"],
        (break_it, True),
        (mend_it, True),
        (lambda: (folder / "x").write_text("x"), True),
    )


def test_several_folders_one_inside_the_other_and_one_by_two_names(tmp_path: Path) -> None:
    (tmp_path / "etc/nestd/conf.d").mkdir(parents=True)
    (tmp_path / "usr/lib/modprobe.d").mkdir(parents=True)
    (tmp_path / "lib").symlink_to("usr/lib")
    steps(
        tmp_path,
        ["/etc/nestd", "/etc/nestd/conf.d", "/usr/lib/modprobe.d", "/lib/modprobe.d", "/run/modprobe.d"],
        (lambda: (tmp_path / "etc/nestd/f").write_text("x"), True),
        (lambda: (tmp_path / "etc/nestd/conf.d/f").write_text("x"), True),
        (lambda: (tmp_path / "lib/modprobe.d/f").write_text("x"), True),
        (lambda: (tmp_path / "run/modprobe.d").mkdir(parents=True), True),
        (lambda: (tmp_path / "run/modprobe.d/f").write_text("x"), True),
    )


def test_many_events_are_one_change_and_an_overflow_is_one(tmp_path: Path) -> None:
    """More events than fs.inotify.max_queued_events before the loop gets to read the first."""
    queue = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_text("")

    async def main() -> None:
        changes = Changes()
        watch = FolderWatch(Root(str(tmp_path)), ["/d"], changes)
        watch.start()
        # Equal neighbours would be merged by the kernel: two names take turns.
        for _ in range(queue // 2 + 100):
            (tmp_path / "d/f").rename(tmp_path / "d/g")
            (tmp_path / "d/g").rename(tmp_path / "d/f")
        await changes.told()
        await tasks.sleep(QUIET)
        assert 1 <= changes.count <= 3
        (tmp_path / "d/new").write_text("")
        await changes.told()
        watch.close()

    loop.run(main())


def test_closed_tells_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        changes = Changes()
        watch = FolderWatch(Root(str(tmp_path)), ["/"], changes)
        watch.close()
        watch.start()
        (tmp_path / "f").write_text("x")
        await tasks.sleep(0)
        watch.close()
        await tasks.sleep(QUIET)
        assert changes.count == 0

    loop.run(main())


def test_start_says_what_is_wrong(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(OSError, match="name too long"):
            FolderWatch(Root(str(tmp_path)), [f"/{'x' * 300}"], lambda: None).start()
        with pytest.raises(FileNotFoundError):
            FolderWatch(Root(str(tmp_path / "none")), ["/x"], lambda: None).start()

    loop.run(main())
