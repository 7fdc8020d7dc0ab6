# SPDX-License-Identifier: LGPL-2.1-or-later
"""Gives a machine that is up: from the cached snapshot in about a second, or by a real boot."""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.vm import cache, hardware, image
from tests.vm.hardware import Files, Hardware, Pflash
from tests.vm.machine import Machine
from tests.vm.progress import Progress, silent

BASE = "base"
_BACKING = "image.qcow2"


@contextlib.contextmanager
def boot(
    progress: Progress = silent,
    config: Hardware | None = None,
    *,
    cold: bool = False,
    built: image.Image | None = None,
) -> Iterator[Machine]:
    """Give a machine that is up, without nestd, with the snapshot "base" in its disk unless `cold`.

    It is Debian 12's unless another image is given. What is missing in the cache is built first, which
    `progress` tells.
    """
    built = built or image.ensure(progress)
    config = config or hardware.suited(built.name)
    base = None if cold else _ensure_base(built, config, progress)
    with cache.workspace() as folder:
        if base is not None:
            progress("the machine goes on from its snapshot")
        with _machine(built, base, folder, config, progress) as machine:
            yield machine


def prepare(built: image.Image, progress: Progress = silent) -> None:
    """Fill the cache for this image."""
    _ensure_base(built, hardware.suited(built.name), progress)


def _machine(
    built: image.Image, base: Path | None, folder: Path, config: Hardware, progress: Progress
) -> Machine:
    """Put all that a machine needs into `folder`, which then needs no cache, and switch it on."""
    disk = folder / "disk.qcow2"
    (folder / _BACKING).hardlink_to(built.disk)
    if base is None:
        command: list[str | Path] = [
            "qemu-img",
            "create",
            "-q",
            "-f",
            "qcow2",
            "-b",
            _BACKING,
            "-F",
            "qcow2",
            disk,
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    else:
        cache.copy(base, disk)
    files = _files(built, folder)
    for ours, cached in ((files.kernel, built.kernel), (files.initrd, built.initrd)):
        if ours and cached:
            ours.hardlink_to(cached)
    if files.pflash and built.pflash:
        files.pflash.code.hardlink_to(built.pflash.code)
        cache.copy(_variables(base) if base else built.pflash.variables, files.pflash.variables)
    return Machine(files, folder, config, progress, None if base is None else BASE)


def _files(built: image.Image, folder: Path) -> Files:
    """What a machine of this image has in `folder`."""
    return Files(
        folder / "disk.qcow2",
        None if built.from_disk else folder / "vmlinuz",
        None if built.from_disk or built.initrd is None else folder / "initrd.img",
        folder / "push.raw",
        Pflash.below(folder) if built.pflash else None,
    )


def _variables(base: Path) -> Path:
    """The firmware's variables as they were when the snapshot was taken, beside its disk."""
    return Pflash.below(base.parent).variables


def _ensure_base(built: image.Image, config: Hardware, progress: Progress) -> Path:
    """Return a disk with the snapshot "base": the first boot of this image on this hardware, done once.

    It holds only what differs from the image, which must lie beside it as _BACKING.
    """

    def make(folder: Path) -> None:
        progress("first boot of this image")
        work = folder / "work"
        work.mkdir()
        with _machine(built, None, work, config, progress) as machine:
            machine.save(BASE)
            machine.release()
        (work / "disk.qcow2").rename(folder / "disk.qcow2")
        if built.pflash:
            Pflash.below(work).variables.rename(Pflash.below(folder).variables)
        cache.remove(work)

    fingerprint = hardware.fingerprint(config, _files(built, Path()))
    key = hashlib.sha256(f"{built.key}\0{fingerprint}".encode()).hexdigest()
    return cache.entry(f"base-{built.name}", key, make, progress) / "disk.qcow2"
