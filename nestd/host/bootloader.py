# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the boot loader will give the kernel at the next boot, read from its own configuration. Read-only."""

# No postponed annotations here: see nestd/model.py.

import os
from collections.abc import Iterator
from typing import NamedTuple

from nestd.errors import Malformed
from nestd.host.efi import PARTITIONS, variable, variable_path
from nestd.host.root import Root

# Folders in which a change can change what is booted.
_FOLDERS = ("/boot/grub", "/boot/grub2", "/boot/loader/entries")
_ON_PARTITIONS = ("loader", "loader/entries", "EFI/Linux")
KERNEL_CMDLINE = "/etc/kernel/cmdline"
_GRUB = ("/boot/grub/grub.cfg", "/boot/grub2/grub.cfg")
OSTREE_STAGED = ("/run/ostree/staged-deployment", "/run/ostree/staged-deployment-locked")
_VENDORS = "/boot/efi/EFI"
_KERNEL_NAMES = ("vmlinuz-", "vmlinux-", "linux-", "kernel-", "bzImage-")


class NextBoot(NamedTuple):
    """What will be booted when nobody touches the menu.

    `loader` is GRUB or systemd-boot, `source` the file and line that the arguments are in, `release` the
    kernel's as `uname -r` would say it, `initrd` the path of its initramfs here; the last two are empty where
    they cannot be told. With `doubt`, a clause, nothing else is known.
    """

    loader: str
    source: str
    command_line: str
    release: str
    initrd: str
    doubt: str


def folders(root: Root) -> tuple[str, ...]:
    """The folders to be watched; of an EFI system partition too, unless it mounts itself when it is used.

    Source: proc(5), mountinfo.
    """
    rows = [row.split() for row in (root.read("/proc/self/mountinfo") or "").split("\n")]
    mounted = {row[4] for row in rows if len(row) > 6} - {row[4] for row in rows if "autofs" in row[6:]}
    there = [one for one in PARTITIONS if one in mounted]
    return (*_FOLDERS, *(f"{one}/{name}" for one in there for name in _ON_PARTITIONS))


def read(root: Root) -> NextBoot | None:
    """What the boot loader says; None if there is no configuration of one. Never raises OSError.

    Read anew only if one of the files has changed since.
    """
    signature = tuple(_signature(root))
    return root.remembered(
        "next boot", signature, lambda: (_staged(root) or _read(root)) if signature else None
    )


def _signature(root: Root) -> Iterator[tuple[str, int, int, int]]:
    """What tells whether anything has changed: each file's inode, time (ns) and size."""
    paths = [*_GRUB, KERNEL_CMDLINE, *OSTREE_STAGED]
    for path in _GRUB:
        folder = path.rpartition("/")[0]
        paths += [f"{folder}/{name}" for name in ("grubenv", "custom.cfg", "user.cfg")]
    paths += _vendors(root)
    for partition in PARTITIONS:
        paths.append(f"{partition}/loader/loader.conf")
        for folder in (f"{partition}/loader/entries", f"{partition}/EFI/Linux"):
            paths += [f"{folder}/{name}" for name in _names(root, folder)]
    names = ("LoaderInfo", "LoaderEntryOneShot", "LoaderEntryDefault", "LoaderEntryLastBooted")
    for path in (*paths, *map(variable_path, names)):
        try:
            found = os.stat(root.path(path))
        except OSError:
            continue
        yield path, found.st_ino, found.st_mtime_ns, found.st_size


def _read(root: Root) -> NextBoot | None:
    from nestd.host import systemdboot  # noqa: PLC0415 -- only where there is something to read
    from nestd.text.grubshell import Untold  # noqa: PLC0415

    loader = ""
    try:
        info = variable(root, "LoaderInfo")
        grub = _grub_file(root)
        entries = any(root.exists(f"{one}/loader") for one in PARTITIONS)
        if info.startswith("systemd-boot") or (entries and not grub):
            loader = "systemd-boot"
            return _systemd_boot(root)
        if grub:
            loader = "GRUB"
            return _grub(root, grub)
        if any(systemdboot.images(root, one) for one in PARTITIONS):
            loader = "the firmware"
            return _lonely_image(root)
    except (Untold, Malformed) as failure:
        return NextBoot(loader, "", "", "", "", str(failure))
    except OSError as failure:
        where = f"{failure.filename}: " if failure.filename else ""
        words = f"{loader or 'its'} configuration cannot be read ({where}{failure.strerror})"
        return NextBoot(loader, "", "", "", "", words)
    return None


def _staged(root: Root) -> NextBoot | None:
    """What ostree writes an entry for only when the machine shuts down."""
    if not root.exists(OSTREE_STAGED[0]):
        return None
    from nestd.host import ostree  # noqa: PLC0415 -- only where an update is staged

    try:
        found = ostree.pending(root)
    except (Malformed, OSError) as failure:
        return NextBoot("ostree", "", "", "", "", f"{OSTREE_STAGED[0]} cannot be read ({failure})")
    if found is None:
        return None
    modules = f"{found.folder}/usr/lib/modules"
    images = (f"{modules}/{name}/initramfs.img" for name in root.names(modules))
    initrd = next((image for image in images if root.exists(image)), "")
    release = _release(root, f"{initrd.rpartition('/')[0]}/vmlinuz", "") if initrd else ""
    return NextBoot("ostree", OSTREE_STAGED[0], " ".join(found.words), release, initrd, "")


def _grub_file(root: Root) -> str:
    """The grub.cfg that counts; on older Red Hat systems with EFI it is in the vendor's folder."""
    for path in _GRUB:
        if root.exists(path):
            return path
    found = [path for path in _vendors(root) if root.exists(path)]
    return found[0] if len(found) == 1 else ""


def _vendors(root: Root) -> list[str]:
    return [f"{_VENDORS}/{name}/grub.cfg" for name in _names(root, _VENDORS)]


def _names(root: Root, folder: str) -> tuple[str, ...]:
    """The names in a folder; one that cannot be read is told when its files are."""
    try:
        return root.names(folder)
    except OSError:
        return ()


def _grub(root: Root, path: str) -> NextBoot:
    from nestd.host import systemdboot  # noqa: PLC0415
    from nestd.text import grub  # noqa: PLC0415 -- only a machine with GRUB needs it
    from nestd.text.grubshell import BESIDE  # noqa: PLC0415

    folder = path.rpartition("/")[0]
    beside = {name: text for name in BESIDE if (text := root.read(f"{folder}/{name}")) is not None}
    choice = grub.choose(
        root.read(path) or "",
        file=path,
        beside=beside,
        variables={"grub_platform": "efi" if root.exists("/sys/firmware/efi") else "pc"},
        entries=systemdboot.entries(root, "/boot"),
    )
    return NextBoot(
        "GRUB",
        f"{choice.file}:{choice.line}",
        choice.command_line,
        _release(root, choice.kernel, ""),
        _here(root, choice.initrd),
        "",
    )


def _systemd_boot(root: Root) -> NextBoot:
    from nestd.host import systemdboot  # noqa: PLC0415

    one = systemdboot.choose(root)
    release = _release(root, one.linux, one.version)
    return NextBoot(
        "systemd-boot", _source(one.path, one.line), one.options, release, _here(root, one.initrd), ""
    )


def _lonely_image(root: Root) -> NextBoot:
    """A unified kernel image that the firmware starts, without a boot loader: told if there is only one."""
    from nestd.host import systemdboot  # noqa: PLC0415
    from nestd.text.grubshell import Untold  # noqa: PLC0415

    found = [one for partition in PARTITIONS for one in systemdboot.images(root, partition)]
    if len(found) != 1:
        raise Untold(
            "there are several unified kernel images, and which one the firmware starts is not known"
        )
    one = found[0]
    return NextBoot(
        "the firmware", one.path, one.options, _release(root, "", one.version), _here(root, one.initrd), ""
    )


def _source(path: str, line: int) -> str:
    return f"{path}:{line}" if path.endswith(".conf") else path


def _release(root: Root, kernel: str, version: str) -> str:
    """The kernel's release, if its modules are here; by its file's name, the entry's version, its folder."""
    parent, _, name = kernel.rpartition("/")
    named = next((name.removeprefix(one) for one in _KERNEL_NAMES if name.startswith(one)), "")
    for release in (named, version, parent.rpartition("/")[2]):
        plain = release and "/" not in release and release not in {".", ".."} and "\0" not in release
        if plain and root.exists(f"/lib/modules/{release}"):
            return release
    return ""


def _here(root: Root, path: str) -> str:
    """Where a file of a boot partition is in this system; empty if it cannot be found."""
    if not path or ".." in path.split("/") or "\0" in path:
        return ""
    candidates = (path, *(f"{place}/{path.lstrip('/')}" for place in ("/boot", "/efi", "/boot/efi")))
    by_name = f"/boot/{path.rpartition('/')[2]}"
    return next((one for one in (*candidates, by_name) if one.startswith("/") and root.exists(one)), "")
