# SPDX-License-Identifier: LGPL-2.1-or-later
"""What an initramfs carries: KVM's modules, and its own copy of modprobe's configuration.

Looked into with the tools of who made it, which take seconds: only for Diagnose and for a change of the
next boot. Sources: lsinitramfs(8), unmkinitramfs(8), lsinitrd(1), lsinitcpio(1).
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import NamedTuple

from nestd.errors import ToolFailed, ToolMissing
from nestd.host.commands import Commands
from nestd.host.root import Root
from nestd.text.modprobe import FOLDERS
from nestd.text.modules import normalize

# Seconds. A large image on a slow disk takes some ten.
_LIMIT = 60.0
_MODULE = re.compile(r"/([^/\s]+)\.ko(?:\.[a-z0-9]+)?$")
_CONFIGURATION = re.compile(
    r"(?:^|[\s/])((?:{})/[^/\s]+\.conf)$".format("|".join(one[1:] for one in FOLDERS))
)
# What is of interest, for sed; the count of all lines at the end shows whether there were any.
_LIST = """"$1" "$2" | sed -n -e '/kvm[^ ]*[.]ko/p' -e '/modprobe[.]d[/].*[.]conf/p' -e '$='"""
# The package of each tool, and how its images are unpacked into a folder.
_TOOLS = {
    "lsinitramfs": ("initramfs-tools-core", 'unmkinitramfs "$1" "$2"'),
    "lsinitrd": ("dracut", 'cd "$2" && lsinitrd --unpack "$1"'),
    "lsinitcpio": ("mkinitcpio", 'cd "$2" && lsinitcpio -x "$1"'),
}


class Image(NamedTuple):
    """What is in it: of the modules that were asked for those that it carries, and its files of modprobe.d.

    The files are read only if it carries one; their paths are the ones they have inside. With `doubt`, a
    clause, nothing could be told, or not all.
    """

    path: str
    modules: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    doubt: str = ""


async def look(root: Root, commands: Commands, path: str, wanted: Sequence[str]) -> Image:
    """Look for the modules `wanted` in the image `path`. What is in the way is told as its doubt.

    An image that has not changed since (inode, time, size) is not opened again.
    """
    try:
        found = os.stat(root.path(path))
    except OSError as failure:
        return Image(path, doubt=f"{path} cannot be looked at: {failure.strerror}")
    signature = (path, tuple(wanted), found.st_ino, found.st_mtime_ns, found.st_size)
    known: list[Image] = root.remembered("initramfs", signature, list)
    if known:
        return known[0]
    try:
        image = await _look(root, commands, path, wanted)
    except (ToolMissing, ToolFailed, OSError) as failure:
        return Image(path, doubt=str(failure).rstrip("."))
    if not image.doubt:
        known.append(image)
    return image


def _tool(commands: Commands) -> str:
    for name in _TOOLS:
        try:
            commands.find(name)
        except ToolMissing:
            continue
        return name
    return ""


async def _look(root: Root, commands: Commands, path: str, wanted: Sequence[str]) -> Image:
    tool = _tool(commands)
    if not tool:
        packages = ", ".join(f"{name} ({package})" for name, (package, _) in _TOOLS.items())
        return Image(path, doubt=f"none of the tools that could look into {path} is installed: {packages}")
    _, unpacking = _TOOLS[tool]
    done = await commands.run("sh", "-c", _LIST, "sh", tool, root.path(path), limit=_LIMIT)
    lines = done.out.split("\n")
    if not any(line.isdecimal() and line != "0" for line in lines):
        return Image(path, doubt=f"{tool} could not read {path} ({done.err.strip() or 'it said nothing'})")
    modules = {normalize(match[1]) for line in lines if (match := _MODULE.search(line))}
    carried = tuple(name for name in wanted if name in modules)
    names = sorted({match[1] for line in lines if (match := _CONFIGURATION.search(line))})
    if not carried or not names:
        return Image(path, carried)
    return Image(path, carried, *await _unpacked(root, commands, path, unpacking, names))


async def _unpacked(
    root: Root, commands: Commands, path: str, unpacking: str, names: Sequence[str]
) -> tuple[tuple[tuple[str, str], ...], str]:
    """The files `names` of the image, and what is missing of them."""
    import tempfile  # noqa: PLC0415 -- hardly any image carries the driver

    with tempfile.TemporaryDirectory(prefix="nestd-initramfs-", ignore_cleanup_errors=True) as folder:
        # Its exit status says little: without CAP_MKNOD no device node can be made.
        done = await commands.run("sh", "-c", unpacking, "sh", root.path(path), folder, limit=_LIMIT)
        # unmkinitramfs puts the archive behind the microcode into a folder of its own.
        inside = Root(f"{folder}/main" if Root(folder).exists("/main") else folder)
        found = {name: inside.read(f"/{name}") for name in names}
    missing = [name for name, text in found.items() if text is None]
    files = tuple((f"/{name}", text) for name, text in found.items() if text is not None)
    words = (
        f"{', '.join(missing)} of {path} could not be unpacked ({done.err.strip()[:300]})" if missing else ""
    )
    return files, words
