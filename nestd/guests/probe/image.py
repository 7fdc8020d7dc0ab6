# SPDX-License-Identifier: LGPL-2.1-or-later
"""What Verify boots, built from what this machine has: kernel and initramfs, kept until that changes."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import NamedTuple

from nestd import tasks
from nestd.errors import ToolFailed, ToolMissing, VerifyFailed
from nestd.guests.probe import parts
from nestd.host import files
from nestd.host.commands import Commands
from nestd.host.machine import Host

# Below /run: the guest reads it as an ordinary user, and it is gone with what it was made of.
FOLDER = "/run/nestd/probe"
_FOLDERS = ("/dev", "/proc", "/sys", "/tmp")  # noqa: S108 -- of the initramfs
_IMAGE = ".cpio.gz"
_LIMIT = 120.0
# Either writes the kernel's format "newc" and takes the file that a link points to.
_CPIO = 'cd "$1" && find . -mindepth 1 | LC_ALL=C sort | cpio --quiet -o -H newc -L -R 0:0 -O "$2"'
_BSDTAR = 'cd "$1" && bsdtar --format=newc -L --uid 0 --gid 0 -cf "$2" -- *'


class Image(NamedTuple):
    """What QEMU boots, by absolute paths that every user can read. `lent`: to be removed after use."""

    kernel: str
    initrd: str
    lent: bool = False


async def image(
    host: Host, driver: str, extension: str, limit: float = 0.8, *, spare: Collection[str] = ()
) -> Image:
    """Build what is missing; a second if all of it is, a tenth if nothing is. One at a time.

    Older ones go, but for `spare`: the initrds that somebody boots, or is about to. While there are none, so
    does what an nestd that was killed left half done. VerifyFailed: what is missing on this machine, and what
    to do.
    """
    try:
        wanted, texts = await parts.of(host, driver, extension, limit)
        kernel = await tasks.to_thread(_kernel, host)
        initrd = f"{FOLDER}/{await tasks.to_thread(_key, wanted, texts)}{_IMAGE}"
        files.make_folder(host.root, FOLDER, 0o755)
        if not spare:
            await _sweep(host)
        if not host.root.exists(initrd):
            await _build(host, wanted, texts, initrd, spare)
        return await _readable(host, Image(kernel, host.root.path(initrd)))
    except ToolMissing as error:
        raise VerifyFailed(f"The probe guest cannot be built: {error}. Install it.") from error
    except ToolFailed as error:
        raise VerifyFailed(f"The probe guest cannot be built: {error}.") from error
    except OSError as error:
        raise VerifyFailed(f"The probe guest cannot be built: {error.filename}: {error.strerror}.") from error


def _kernel(host: Host) -> str:
    """The running kernel's file. VerifyFailed, OSError."""
    modules = f"/lib/modules/{host.release}"
    places = (f"/boot/vmlinuz-{host.release}", f"{modules}/vmlinuz", f"/usr{modules}/vmlinuz")
    for place in places:
        if host.root.exists(place):
            return os.path.realpath(host.root.path(place))
    raise VerifyFailed(
        f"The running kernel's file is not there (looked for {' and '.join(places[:2])}): the probe guest "
        "boots the same kernel. Reboot if it was upgraded; one that a hypervisor or cloud gives has no file."
    )


def _key(wanted: Mapping[str, str], texts: Mapping[str, str]) -> str:
    """A name that changes with whatever goes in. OSError."""
    known = hashlib.sha256(repr(sorted(texts.items())).encode())
    for place, path in sorted(wanted.items()):
        found = os.stat(path)
        known.update(repr((place, path, found.st_ino, found.st_size, found.st_mtime_ns)).encode())
    return known.hexdigest()[:32]


async def _sweep(host: Host) -> None:
    """Remove all that is no image. ToolMissing, ToolFailed, OSError."""
    left = [name for name in files.names(host.root, FOLDER) if not name.endswith(_IMAGE)]
    if left:
        await _run(host.commands, "rm", "-rf", "--", *(host.root.path(f"{FOLDER}/{name}") for name in left))


async def _build(
    host: Host, wanted: Mapping[str, str], texts: Mapping[str, str], initrd: str, spare: Collection[str]
) -> None:
    """Pack it beside its place, then put it there; older ones go. ToolMissing, ToolFailed, OSError."""
    commands, script = host.commands, await tasks.to_thread(_packer, host.commands)
    work = host.root.path(f"{FOLDER}/.{os.urandom(8).hex()}")
    tree, packed = f"{work}/tree", f"{work}/packed"
    try:
        await tasks.to_thread(_stage, tree, wanted, texts)
        await _run(commands, "sh", "-c", script, "sh", tree, packed)
        await _run(commands, "gzip", "-1", "-n", packed)
        os.chmod(f"{packed}.gz", 0o644)
        for name in host.root.names(FOLDER):
            if name.endswith(_IMAGE) and host.root.path(f"{FOLDER}/{name}") not in spare:
                files.remove(host.root, f"{FOLDER}/{name}")
        os.rename(f"{packed}.gz", host.root.path(initrd))
    finally:
        await _run(commands, "rm", "-rf", "--", work)


def _packer(commands: Commands) -> str:
    with suppress(ToolMissing):
        commands.find("cpio")
        return _CPIO
    with suppress(ToolMissing):
        commands.find("bsdtar")
        return _BSDTAR
    raise ToolMissing("cpio")


def _stage(tree: str, wanted: Mapping[str, str], texts: Mapping[str, str]) -> None:
    """A tree of links to what goes in: nothing is copied before it is packed. OSError."""
    for folder in _FOLDERS:
        os.makedirs(tree + folder)
    for place, path in wanted.items():
        os.makedirs(os.path.dirname(tree + place), exist_ok=True)
        os.symlink(path, tree + place)
    for place, text in texts.items():
        with open(tree + place, "x", encoding="utf-8") as file:
            file.write(text)
        os.chmod(tree + place, 0o755)  # noqa: S103 -- /init has to be executable, and is no secret


async def _readable(host: Host, image: Image) -> Image:
    """Lend the guest's user a copy of a kernel that only root may reach, as some distributions have it."""
    if await tasks.to_thread(_open_to_all, host, image.kernel):
        return image
    copy = f"{FOLDER}/kernel-{os.urandom(8).hex()}"
    try:
        await _run(host.commands, "install", "-m", "0644", "--", image.kernel, host.root.path(copy))
    except BaseException:
        files.remove(host.root, copy)
        raise
    return image._replace(kernel=host.root.path(copy), lent=True)


def _open_to_all(host: Host, path: str) -> bool:
    """Whether every user may read `path`, and go through the folders on the way from the root. OSError."""
    top = os.path.realpath(host.root.path("/"))
    found = bool(os.stat(path).st_mode & stat.S_IROTH)
    while found and (path := os.path.dirname(path)) not in (top, "/"):
        found = bool(os.stat(path).st_mode & stat.S_IXOTH)
    return found


async def _run(commands: Commands, *argv: str) -> None:
    done = await commands.run(*argv, limit=_LIMIT)
    if done.code != 0:
        raise ToolFailed(argv[:1], done.code, done.err)
