# SPDX-License-Identifier: LGPL-2.1-or-later
"""What an initramfs carries: KVM's modules, its own copy of modprobe's configuration, and who made it.

Looked into with the tools of those who make them, which takes seconds: only for Diagnose and for a change of
the next boot; nestd/nesting/seen.py remembers it. Sources: lsinitramfs(8), unmkinitramfs(8), lsinitrd(1),
lsinitcpio(1); what each maker leaves in its images: mkinitramfs, dracut.sh, mkinitcpio's functions.
"""

# No postponed annotations here: see nestd/model.py.

import os
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

from nestd.errors import Malformed, ToolFailed, ToolMissing
from nestd.host.commands import Commands
from nestd.host.root import Root
from nestd.text.modprobe import FOLDERS
from nestd.text.modules import normalize

INITRAMFS_TOOLS, DRACUT, MKINITCPIO = "initramfs-tools", "dracut", "mkinitcpio"
# Seconds. A large image on a slow disk takes some ten, on an emulated processor minutes.
_LIMIT = 300.0
_LARGEST = 64 << 10  # bytes of a file of modprobe.d
_MODULE = r"/(kvm[^/\s]*)\.ko(?:\.[a-z0-9]+)?$"
_CONFIGURATION = r"(?:^|[\s/])((?:{})/[^/\s]+\.conf)$".format("|".join(one[1:] for one in FOLDERS))
_MAKERS = {
    DRACUT: r"(?:^|[\s/])lib/dracut/modules\.txt$",
    INITRAMFS_TOOLS: r"(?:^|[\s/])conf/initramfs\.conf$",
    MKINITCPIO: r"(?:^|[\s/])buildconfig$",
}
_SQUASHED = r"(?:squash|squashfs|erofs)-root\.img$"
# What is of interest, for sed; the count of all files at the end shows whether there were any besides those
# that stand before the compressed archive.
_LIST = """ | grep -v -E '(^|[ /])(early_cpio|kernel|kernel/x86(/.*)?|[.])$' | sed -n -e 's/ -> .*//' \
-e '/kvm[^ ]*[.]ko/p' -e '/modprobe[.]d[/].*[.]conf$/p' -e '/lib[/]dracut[/]modules[.]txt$/p' \
-e '/conf[/]initramfs[.]conf$/p' -e '/buildconfig$/p' -e '/-root[.]img$/p' -e '$='"""
# The package of each tool; how it lists what is in an image, of which lsinitrd has more to say, and how it
# unpacks that into a folder, which lsinitrd does file by file.
_TOOLS = {
    "lsinitramfs": ("initramfs-tools-core", 'lsinitramfs "$1"', 'unmkinitramfs "$1" "$2"'),
    "lsinitrd": (
        "dracut",
        "lsinitrd \"$1\" | grep '^[-dlcbps][-r][-w]'",
        'image=$1; cd "$2" && shift 2 && lsinitrd --unpack "$image" "$@"',
    ),
    "lsinitcpio": ("mkinitcpio", 'lsinitcpio "$1"', 'cd "$2" && lsinitcpio -x "$1"'),
}


class Image(NamedTuple):
    """What is in it: KVM's modules, and its files of modprobe.d that may have to do with them.

    The paths of the files are the ones they have inside. `maker` is one of the three of this module, empty if
    it is not known. With `doubt`, a clause, nothing could be told, or not all.
    """

    path: str
    modules: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    doubt: str = ""
    maker: str = ""


async def look(root: Root, commands: Commands, path: str) -> Image:
    """Look into the image `path`, or into that of a unified kernel image. What is in the way is its doubt."""
    try:
        with _folder() as folder:
            return await _look(commands, path, _packed(root.path(path), folder), folder)
    except (ToolMissing, ToolFailed) as failure:
        return Image(path, doubt=str(failure).rstrip("."))
    except Malformed as failure:
        return Image(path, doubt=f"{path} cannot be read: {failure}")
    except OSError as failure:
        return Image(path, doubt=f"{path} cannot be read: {failure.strerror}")


def _folder() -> AbstractContextManager[str]:
    """A folder for what is unpacked; on a disk, because what is in a tmpfs counts as nestd's memory."""
    import tempfile  # noqa: PLC0415 -- start-up looks into none

    place = "/var/tmp"  # noqa: S108 -- the folder is made in it by mkdtemp
    return tempfile.TemporaryDirectory(
        prefix="nestd-", dir=place if os.path.isdir(place) else None, ignore_cleanup_errors=True
    )


def _packed(path: str, folder: str) -> str:
    """The file that holds the initramfs: of a unified kernel image its section, taken out into `folder`."""
    with open(path, "rb") as file:
        if file.read(2) != b"MZ":
            return path
        from nestd.text import pe  # noqa: PLC0415 -- hardly any machine boots one

        file.seek(0)
        inside = pe.sections(file.read(pe.HEADERS)).get(".initrd")
        if inside is None:
            raise Malformed("it has no initramfs in it")
        taken = f"{folder}/initrd"
        with open(taken, "wb") as copy:
            at, end = inside.offset, inside.offset + inside.size
            while at < end and (done := os.sendfile(copy.fileno(), file.fileno(), at, end - at)):
                at += done
        return taken


async def _look(commands: Commands, path: str, packed: str, folder: str) -> Image:
    doubts = []
    for tool, (_, listing, unpacking) in _TOOLS.items():
        try:
            commands.find(tool)
        except ToolMissing:
            continue
        done = await commands.run("sh", "-c", listing + _LIST, "sh", packed, limit=_LIMIT)
        lines = done.out.split("\n")
        if any(line.isdecimal() and line != "0" for line in lines):
            return await _told(commands, path, packed, unpacking, lines, folder)
        doubts.append(f"{tool} could not read {path} ({done.err.strip()[:300] or 'it said nothing'})")
    if doubts:
        return Image(path, doubt="; ".join(doubts))
    packages = ", ".join(f"{name} ({package})" for name, (package, *_) in _TOOLS.items())
    return Image(path, doubt=f"none of the tools that could look into {path} is installed: {packages}")


async def _told(
    commands: Commands, path: str, packed: str, unpacking: str, lines: Sequence[str], folder: str
) -> Image:
    modules = {normalize(match[1]) for line in lines if (match := re.search(_MODULE, line))}
    names = sorted({match[1] for line in lines if (match := re.search(_CONFIGURATION, line))})
    maker = next((one for one, mark in _MAKERS.items() if any(re.search(mark, line) for line in lines)), "")
    files, missing = await _unpacked(commands, packed, unpacking, names, folder) if names else ((), "")
    doubt = f"of {path} could not be unpacked: {missing}" if missing else ""
    if not modules and any(re.search(_SQUASHED, line) for line in lines):
        doubt = f"{path} holds a file system of its own, which is not looked into"
    return Image(path, tuple(sorted(modules)), files, doubt, maker)


async def _unpacked(
    commands: Commands, packed: str, unpacking: str, names: Sequence[str], above: str
) -> tuple[tuple[tuple[str, str], ...], str]:
    """The files `names` of the image, and what is missing of them, with the tool's words."""
    folder = f"{above}/unpacked"
    os.mkdir(folder)
    # Its exit status says little: without CAP_MKNOD no device node can be made.
    done = await commands.run("sh", "-c", unpacking, "sh", packed, folder, *names, limit=_LIMIT)
    # Of several archives unmkinitramfs puts each into a folder of its own; the last one's files count.
    early = sorted((one for one in os.listdir(folder) if one.startswith("early")), reverse=True)
    places = [f"{folder}/{one}" for one in ("main", *early)] if early else [folder]
    found = {name: next(filter(None, (_inside(place, name) for place in places)), None) for name in names}
    missing = ", ".join(name for name, text in found.items() if text is None)
    files = tuple((f"/{name}", text) for name, text in found.items() if text is not None and _matters(text))
    return files, f"{missing} ({done.err.strip()[:300]})" if missing else ""


def _inside(place: str, name: str) -> str | None:
    """The text of an unpacked file, a line at least. Not of one that a link out of the image leads to."""
    path = os.path.realpath(f"{place}/{name}")
    if not path.startswith(f"{os.path.realpath(place)}/") or not os.path.isfile(path):
        return None
    with open(path, "rb") as file:
        data = file.read(_LARGEST + 1)
    return None if len(data) > _LARGEST else data.decode("utf-8", "surrogateescape") or "\n"


def _matters(text: str) -> bool:
    """Whether it can speak of KVM: by its name, a CPU's alias, or a pattern."""
    return any(one in text for one in ("kvm", "cpu:", "*", "?", "["))
