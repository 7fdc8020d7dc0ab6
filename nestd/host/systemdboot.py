# SPDX-License-Identifier: LGPL-2.1-or-later
"""What systemd-boot will boot: its entries, the unified kernel images, and its choice among them.

Sources: loader.conf(5), systemd-boot(7), systemd's src/boot/efi/boot.c (config_select_default_entry).
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from nestd.errors import Malformed
from nestd.host.efi import PARTITIONS, variable
from nestd.host.root import Root
from nestd.text import bls, pe
from nestd.text.grubshell import Untold

_LARGEST = 64 << 10  # bytes of a section that is read whole


def entries(root: Root, partition: str) -> list[bls.Entry]:
    """The type 1 entries of a partition. Raises OSError."""
    folder = f"{partition}/loader/entries"
    names = [name for name in root.files(folder) if name.endswith(".conf") and not name.startswith(".")]
    return [bls.entry(f"{folder}/{name}", root.read(f"{folder}/{name}") or "") for name in names]


def images(root: Root, partition: str) -> list[bls.Entry]:
    """The unified kernel images of a partition, type 2. Raises OSError and Malformed."""
    folder = f"{partition}/EFI/Linux"
    names = [name for name in root.files(folder) if name.lower().endswith(".efi")]
    return [image(root, f"{folder}/{name}") for name in names]


def image(root: Root, path: str) -> bls.Entry:
    """A unified kernel image as an entry. Raises OSError and Malformed."""
    file = os.open(root.path(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        sections = pe.sections(os.pread(file, pe.HEADERS, 0))

        def text(name: str) -> str:
            at = sections.get(name, pe.Section(0, 0))
            data = os.pread(file, min(at.size, _LARGEST), at.offset)
            return data.decode("utf-8", "surrogateescape").rstrip("\0")

        if ".linux" not in sections:
            raise Malformed(f"{path} is no unified kernel image: it has no section .linux")
        system = {
            key: value.strip("\"'")
            for key, _, value in (row.partition("=") for row in text(".osrel").split("\n"))
        }
        return bls.Entry(
            id=path.rpartition("/")[2],
            path=path,
            line=1,
            title=system.get("PRETTY_NAME", ""),
            linux=path,
            initrd=path,
            options=text(".cmdline").strip(),
            version=text(".uname").strip() or system.get("VERSION_ID", ""),
            sort_key=system.get("IMAGE_ID") or system.get("ID", ""),
        )
    finally:
        os.close(file)


def choose(root: Root) -> bls.Entry:
    """What it boots when nobody chooses. Raises Untold, OSError, Malformed."""
    found: dict[str, bls.Entry] = {}
    said: dict[str, tuple[str, int]] = {}
    for partition in PARTITIONS:
        for one in (*entries(root, partition), *images(root, partition)):
            found.setdefault(_name(one).lower(), one)
        said = said or bls.loader_conf(root.read(f"{partition}/loader/loader.conf") or "")
    listed = bls.ordered(list(found.values()))
    if not listed:
        raise Untold("systemd-boot has no entry that could be found")
    wanted = variable(root, "LoaderEntryOneShot") or variable(root, "LoaderEntryDefault")
    wanted = wanted or said.get("default", ("", 0))[0]
    if wanted == "@saved":
        wanted = variable(root, "LoaderEntryLastBooted")
    if wanted.startswith(("auto-", "@")):
        raise Untold(f"systemd-boot's default is {wanted}, which is none of its entries")
    chosen = _matching(listed, wanted) or listed[0]
    if not chosen.linux:
        raise Untold(f"systemd-boot's default, {chosen.path}, boots no Linux kernel")
    if chosen.linux.lower().endswith(".efi") and chosen.linux != chosen.path and not chosen.options:
        # An entry that starts a unified kernel image and adds nothing: the image's own line counts.
        return image(root, _started(root, chosen))
    return chosen


def _started(root: Root, one: bls.Entry) -> str:
    """Where the image is that an entry starts; its path may begin without a slash. Raises Untold, OSError."""
    found = [at for at in (f"{place}/{one.linux.lstrip('/')}" for place in PARTITIONS) if _there(root, at)]
    if not found:
        raise Untold(f"{one.path} starts {one.linux}, which is not found")
    return found[0]


def _there(root: Root, path: str) -> bool:
    return ".." not in path.split("/") and "\0" not in path and root.exists(path)


def _name(one: bls.Entry) -> str:
    """The id as systemd-boot has it, with its suffix."""
    return one.id if one.linux == one.path else f"{one.id}.conf"


def _matching(listed: Sequence[bls.Entry], pattern: str) -> bls.Entry | None:
    if not pattern:
        return None
    from fnmatch import fnmatchcase  # noqa: PLC0415 -- only a machine with a default needs it

    return next((one for one in listed if fnmatchcase(_name(one).lower(), pattern.lower())), None)
