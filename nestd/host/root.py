# SPDX-License-Identifier: LGPL-2.1-or-later
"""The root of the file system as one value: the only place where a host path is formed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Any, TypeVar

_T = TypeVar("_T")
# No file that nestd reads comes near it (/proc/cpuinfo of 2,000 CPUs has 4 MiB).
_LIMIT = 16 << 20
_MISSING = (FileNotFoundError, NotADirectoryError)
# What reading an open file of /sys or /proc says when its module or process has gone meanwhile.
_GONE = (errno.ENODEV, errno.ESRCH)


class Root:
    """The machine's files below `top`.

    Only what is not there (ENOENT, ENOTDIR) is "missing". Everything else that stands in the way,
    a missing permission above all, is raised as the OSError it is. A path that is not
    absolute, or that has `..` or a NUL in it, is a ValueError.
    """

    def __init__(self, top: str = "/") -> None:
        self._top = top.rstrip("/")
        self._remembered: dict[str, tuple[object, Any]] = {}

    def path(self, absolute: str) -> str:
        """Where `absolute` (as the machine calls it: "/proc/cpuinfo") is below this root."""
        if not absolute.startswith("/") or "\0" in absolute or ".." in absolute.split("/"):
            raise ValueError(f"not a plain absolute path: {absolute!r}")
        return f"{self._top}/{absolute.strip('/')}".rstrip("/") or "/"

    def read(self, absolute: str) -> str | None:
        """The whole text, None if there is no such file; bytes that are no UTF-8 are kept (surrogateescape).

        Raises OSError: EFBIG for more than 16 MiB, EISDIR, EACCES and what else the kernel says.
        """
        try:
            # Somebody else's FIFO must not hold the daemon: O_NONBLOCK changes nothing for a file.
            file = os.open(self.path(absolute), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except _MISSING:
            return None
        data = bytearray()
        try:
            while piece := os.read(file, 1 << 16):
                data += piece
                if len(data) > _LIMIT:
                    raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), absolute)
        except OSError as error:
            if error.errno in _GONE:
                return None
            raise
        finally:
            os.close(file)
        return data.decode("utf-8", "surrogateescape")

    def names(self, absolute: str) -> tuple[str, ...]:
        """The names in a folder, sorted; () if there is no such folder. Raises OSError."""
        try:
            return tuple(sorted(os.listdir(self.path(absolute))))
        except _MISSING:
            return ()

    def files(self, absolute: str) -> tuple[str, ...]:
        """The names in a folder, sorted, without those of folders and of dangling links.

        Links are followed. This is what libkmod takes for a configuration file. Raises OSError.
        """
        found = []
        for name in self.names(absolute):
            try:
                mode = os.stat(self.path(f"{absolute}/{name}")).st_mode
            except _MISSING:
                continue
            if not stat.S_ISDIR(mode):
                found.append(name)
        return tuple(found)

    def link(self, absolute: str) -> str | None:
        """What a symbolic link says, unresolved; None if it is not there. Raises OSError (EINVAL: none)."""
        try:
            return os.readlink(self.path(absolute))
        except _MISSING:
            return None

    def exists(self, absolute: str) -> bool:
        """Whether there is a file or a folder (links are followed). Raises OSError."""
        try:
            os.stat(self.path(absolute))
        except _MISSING:
            return False
        return True

    def remembered(self, what: str, signature: object, make: Callable[[], _T]) -> _T:
        """What `make` gives, made anew only if `signature` is not the one of the last time."""
        known = self._remembered.get(what)
        if known is None or known[0] != signature:
            known = self._remembered[what] = (signature, make())
        found: _T = known[1]
        return found
