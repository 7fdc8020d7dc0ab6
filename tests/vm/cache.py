# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where what takes long is kept: folders named by the hash of what they were made of."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.vm.progress import Progress

_KEPT = 2


def root() -> Path:
    """Return the cache's folder: $NESTD_CACHE/vm, else below $XDG_CACHE_HOME or ~/.cache."""
    given = os.environ.get("NESTD_CACHE")
    if given:
        return Path(given).absolute() / "vm"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "nestd" / "vm"


@contextlib.contextmanager
def locked(name: str, progress: Progress, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock `name` of the cache; another run's is waited for, and the wait is told."""
    root().mkdir(parents=True, exist_ok=True)
    with (root() / f"{name}.lock").open("a") as lock:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"waiting for another run that makes the {name}")
            fcntl.flock(lock, kind)
        yield


def entry(kind: str, key: str, make: Callable[[Path], None], progress: Progress) -> Path:
    """Return the folder of `key`, which `make` fills if it is not there; old ones of this kind are pruned.

    A `make` that raises, or is killed, leaves nothing that a later run would take for whole.
    """
    final = root() / f"{kind}-{key[:20]}"
    with locked(kind, progress):
        if not final.is_dir():
            for stale in root().glob(f".{kind}-*"):
                remove(stale)
            building = Path(tempfile.mkdtemp(prefix=f".{kind}-", dir=root()))
            try:
                make(building)
                _flush(building)
                building.rename(final)
            finally:
                remove(building)
        os.utime(final)
        _prune(kind)
    return final


def _flush(folder: Path) -> None:
    """Put it on the disk: an entry that a crash of the host cut short would be taken for whole for ever."""
    for path in [*folder.iterdir(), folder]:
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)


def _prune(kind: str, kept: int = _KEPT) -> None:
    entries = sorted(root().glob(f"{kind}-*/"), key=lambda path: path.stat().st_mtime_ns)
    for old in entries[: len(entries) - kept]:
        remove(old)


@contextlib.contextmanager
def workspace() -> Iterator[Path]:
    """Give a private folder beside the cache (so that copies can share blocks), gone at the end.

    Those of runs that were killed are removed: nobody holds their lock any more.
    """
    with locked("run", lambda _phase: None):
        _sweep()
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=root()))
        alive = (folder / "alive").open("w")
        fcntl.flock(alive, fcntl.LOCK_EX)
    with alive:
        try:
            yield folder
        finally:
            remove(folder)


def _sweep() -> None:
    for folder in root().glob("run-*/"):
        with contextlib.suppress(OSError), (folder / "alive").open("r") as alive:
            fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(folder)


def clear() -> None:
    """Remove every entry, what was asked of apt, and the folders of runs that were killed."""
    with locked("run", lambda _phase: None):
        _sweep()
    for kind in sorted({lock.stem for lock in root().glob("*.lock")} - {"run"}):
        with locked(kind, lambda _phase: None):
            _prune(kind, 0)
    for plan in root().glob("plan-*.json"):
        plan.unlink()
    for lists in root().glob("lists-*/"):
        remove(lists)


def copy(source: Path, destination: Path) -> None:
    """Copy a disk: by reference where the file system can, with its holes everywhere."""
    subprocess.run(["cp", "--reflink=auto", "--sparse=always", "--", source, destination], check=True)


def remove(folder: Path) -> None:
    """Remove a tree, never what may be mounted in it."""
    if folder.exists():
        subprocess.run(["rm", "-rf", "--one-file-system", "--", folder], check=True)


def free_bytes() -> int:
    """Return what the cache's file system still takes."""
    root().mkdir(parents=True, exist_ok=True)
    return shutil.disk_usage(root()).free
