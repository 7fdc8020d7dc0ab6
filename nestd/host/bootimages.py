# SPDX-License-Identifier: LGPL-2.1-or-later
"""The initramfs of each kernel that is installed here: where it is, and of which kernel it is.

Not those of another system on the same EFI partition, a rescue image's and kdump's.
Sources: update-initramfs(8), dracut(8) and its default names (dracut.sh), kernel-install(8), mkinitcpio's
presets (/usr/share/mkinitcpio/example.preset).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from nestd.host.bootloader import NextBoot
from nestd.host.efi import PARTITIONS
from nestd.host.entrytoken import tokens
from nestd.host.root import Root

PRESETS = "/etc/mkinitcpio.d"
# What an image that is being made is called until it is whole.
NEW = ".nestd-new"
_IN_BOOT = ("initrd.img-{}", "initramfs-{}.img", "initrd-{}", "initramfs-{}")
# A preset is a piece of shell: NAME_image="/boot/initramfs-linux.img".
_MADE = r"""^[ \t]*(\w+?)_(?:image|uki|efi_image)=(["']?)(/[^"'\s]+)\2"""
_LISTED = r"^[ \t]*PRESETS=\(([^)]*)\)"


class Installed(NamedTuple):
    """An image, and its kernel's release; that is empty where it cannot be told.

    `preset` is the one of mkinitcpio's that names it. `next`: the next boot loads it.
    """

    path: str
    release: str
    preset: str = ""
    next: bool = False


def of_next_boot(root: Root, following: NextBoot | None, release: str) -> str:
    """The initramfs that the next boot loads, or that of the kernel `release`; empty if none is found."""
    if following is not None and not following.doubt:
        if following.initrd:
            return following.initrd
        release = following.release or release
    names = (f"/boot/{name.format(release)}" for name in _IN_BOOT)
    return next((path for path in names if root.exists(path)), "")


def installed(root: Root, following: NextBoot | None, release: str) -> tuple[Installed, ...]:
    """All of them, that of the next boot first, each once. Raises OSError."""
    found: dict[tuple[int, int], Installed] = {}
    for one in (*presets(root), *_named(root)):
        if place := _place(root, one.path):
            found.setdefault(place, one)
    first = of_next_boot(root, following, release)
    if first and (place := _place(root, first)):
        known = following is not None and not following.doubt
        its = following.release if following is not None and known else release
        found[place] = found.get(place, Installed(first, its))._replace(next=True)
    return tuple(sorted(found.values(), key=lambda one: (not one.next, one.path)))


def presets(root: Root) -> Iterator[Installed]:
    """The images that mkinitcpio's presets name, whether they are there or not."""
    for name in root.files(PRESETS):
        if not name.endswith(".preset"):
            continue
        text = root.read(f"{PRESETS}/{name}") or ""
        listed = re.search(_LISTED, text, re.MULTILINE)
        wanted = re.findall(r"\w+", listed[1]) if listed else []
        for match in re.finditer(_MADE, text, re.MULTILINE):
            if match[1] in wanted and ".." not in match[3].split("/"):
                yield Installed(match[3], "", name.removesuffix(".preset"))


def copies(root: Root, release: str) -> tuple[str, ...]:
    """What kernel-install has put on a boot partition for a kernel: its initramfs, and the entries.

    Only of this system, by what kernel-install names its folders after.
    """
    found = []
    for token in tokens(root):
        for partition in PARTITIONS:
            folder = f"{partition}/{token}/{release}"
            found += [
                f"{folder}/{name}"
                for name in root.files(folder)
                if name.startswith("init") and not name.endswith(NEW)
            ]
            entries = f"{partition}/loader/entries"
            entry = re.compile(re.escape(f"{token}-{release}") + r"(?:\+[\d-]+)?\.conf")
            found += [f"{entries}/{name}" for name in root.files(entries) if entry.fullmatch(name)]
    return tuple(dict.fromkeys(found))


def _place(root: Root, path: str) -> tuple[int, int] | None:
    """What tells one file from another whatever it is called; None if there is none. OSError."""
    try:
        found = os.stat(root.path(path))
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _named(root: Root) -> Iterator[Installed]:
    """Those whose name, or whose folder, says which kernel they are for."""
    there = set(root.files("/boot"))
    for release in root.names("/lib/modules"):
        for name in (pattern.format(release) for pattern in _IN_BOOT):
            if name in there:
                yield Installed(f"/boot/{name}", release)
        yield from (Installed(path, release) for path in copies(root, release) if not path.endswith(".conf"))
