# SPDX-License-Identifier: LGPL-2.1-or-later
"""Copies of what a tool makes anew (grub.cfg, an initramfs), until the change is over: /var/lib/nestd/kept.

A copy is made once in a change, before the tool runs for the first time: it is what was there before. That
there was nothing is kept, too.
"""

from __future__ import annotations

from nestd.errors import ToolFailed
from nestd.host import files, outside
from nestd.host.machine import Host

FOLDER = "/var/lib/nestd/kept"
# Seconds. An initramfs of 100 MB on a slow disk.
_LIMIT = 300.0
_NOTHING = ".nothing"
_PIECE = 1 << 20  # bytes
# In the folder of the file that is put back, so that it is renamed into place; no tool takes it for a
# kernel's.
_PUT_BACK = """set -e
to=$(readlink -f -- "$2")
new="${to%/*}/.nestd-kept"
rm -f -- "$new"
cp --preserve=mode,ownership,timestamps -- "$1" "$new"
sync -f "$new"
mv -f -- "$new" "$to"
sync -f "$to"
"""


async def keep(host: Host, paths: tuple[str, ...]) -> None:
    """Copy the files, unless that was done before in this change. ToolFailed, OSError (ENOSPC ...)."""
    for path in paths:
        copy = _copy(path)
        if host.root.exists(copy) or host.root.exists(copy + _NOTHING):
            continue
        files.make_folder(host.root, FOLDER, 0o700)
        if not host.root.exists(path):
            files.replace(host.root, copy + _NOTHING, "", 0o600)
            continue
        source, target = host.root.path(path), host.root.path(copy)
        await _run(host, "cp", "--preserve=mode,ownership,timestamps", "--", source, f"{target}.new")
        await _run(host, "sync", f"{target}.new")
        await _run(host, "mv", "-f", "--", f"{target}.new", target)


async def put_back(host: Host, paths: tuple[str, ...]) -> None:
    """Have the files as they were, those that differ. ToolFailed, OSError."""
    for path in paths:
        if same(host, (path,)):
            continue
        if host.root.exists(_copy(path)):
            words = ["sh", "-c", _PUT_BACK, "sh", host.root.path(_copy(path)), host.root.path(path)]
        else:
            words = ["rm", "-f", "--", host.root.path(path)]
        await outside.run(host.units, host.commands, words, _LIMIT)


def same(host: Host, paths: tuple[str, ...]) -> bool:
    """Whether the files are as they were; one that was not kept has not been touched. OSError."""
    for path in paths:
        copy = _copy(path)
        if host.root.exists(copy + _NOTHING) and host.root.exists(path):
            return False
        if host.root.exists(copy) and not _equal(host.root.path(copy), host.root.path(path)):
            return False
    return True


def forget(host: Host) -> None:
    """The change is over: no copies are needed. OSError."""
    for name in files.names(host.root, FOLDER):
        files.remove(host.root, f"{FOLDER}/{name}")


def _copy(path: str) -> str:
    """Where the copy of a file is: one name for each path."""
    return f"{FOLDER}/{path.replace('%', '%25').replace('/', '%2F')}"


def _equal(one: str, other: str) -> bool:
    try:
        with open(one, "rb") as first, open(other, "rb") as second:
            while True:
                pieces = first.read(_PIECE), second.read(_PIECE)
                if pieces[0] != pieces[1]:
                    return False
                if not pieces[0]:
                    return True
    except FileNotFoundError:
        return False


async def _run(host: Host, *argv: str) -> None:
    done = await host.commands.run(*argv, limit=_LIMIT)
    if done.code:
        raise ToolFailed(argv, done.code, done.err)
