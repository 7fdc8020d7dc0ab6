# SPDX-License-Identifier: LGPL-2.1-or-later
"""Watching folders for changes with inotify(7), on the loop, without polling."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Sequence

from nestd.host.inotify import Inotify
from nestd.host.root import Root
from nestd.loop import Handle, running

_CLOSE_WRITE, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x8, 0x40, 0x80, 0x100, 0x200
_DELETE_SELF, _MOVE_SELF, _ONLYDIR = 0x400, 0x800, 0x1000000
_MASK = _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF | _MOVE_SELF | _ONLYDIR
_EVENT = struct.Struct("=iIII")  # wd, mask, cookie, length of the name that follows
# A link that leads to itself is as good as none, and may become one that leads somewhere.
_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
# Seconds in which further events belong to the same change: a package or an editor writes more than once.
_TOGETHER = 0.05


class FolderWatch:
    """Calls `on_change` some 50 ms after something in one of `folders` came, went or was written.

    Many events in that time make one call. A folder that is not there is waited for at its nearest
    parent that is; its coming and its going count as changes, and so does an overflow of the
    kernel's queue. Not noticed: permissions that change, and a parent folder that is renamed.
    """

    def __init__(self, root: Root, folders: Sequence[str], on_change: Callable[[], None]) -> None:
        self._folders = frozenset(map(root.path, folders))
        self._top = root.path("/")
        self._on_change = on_change
        self._inotify: Inotify | None = None
        self._watched: dict[int, set[str]] = {}
        self._timer: Handle | None = None

    def start(self) -> None:
        """Watch, on the running loop. Raises OSError: ENOSPC (fs.inotify.max_user_watches), EACCES ..."""
        self._inotify = Inotify()
        try:
            self._watch(self._inotify)
        except OSError:
            self.close()
            raise
        running().add_reader(self._inotify.descriptor, self._read, self._inotify)

    def close(self) -> None:
        """Watch no more; a change that was not yet told is not told."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._inotify is not None:
            running().remove_reader(self._inotify.descriptor)
            self._inotify.close()
            self._inotify = None
            self._watched = {}

    def _nearest(self, inotify: Inotify, folder: str) -> tuple[int, str]:
        """Watch `folder` or the nearest parent that is there."""
        path = folder
        while True:
            try:
                watch = inotify.add(path, _MASK)
            except OSError as error:
                if error.errno not in _MISSING or path == self._top:
                    raise
                path = os.path.dirname(path)
                continue
            # What was missing a moment ago may have come before its parent was watched.
            below = os.path.join(path, folder[len(path) :].lstrip("/").partition("/")[0])
            if path == folder or not os.path.isdir(below):
                return watch, path
            path = below

    def _watch(self, inotify: Inotify) -> bool:
        """Watch what is there now; whether a folder has come, gone, or become another."""
        before = self._watched
        now: dict[int, set[str]] = {}
        for folder in self._folders:
            watch, path = self._nearest(inotify, folder)
            # Two names of one folder (/lib, /usr/lib) have one watch.
            now.setdefault(watch, set()).add(path)
        for watch in before.keys() - now.keys():
            inotify.remove(watch)
        self._watched = now
        return self._live(before) != self._live(now)

    def _live(self, watched: dict[int, set[str]]) -> set[tuple[int, str]]:
        return {(watch, path) for watch, paths in watched.items() for path in paths & self._folders}

    def _read(self, inotify: Inotify) -> None:
        data = os.read(inotify.descriptor, 1 << 16)
        changed = False
        offset = 0
        while offset < len(data):
            watch, _, _, length = _EVENT.unpack_from(data, offset)
            offset += _EVENT.size + length
            # -1 is an overflow. An event in a parent that is only waited at is no change.
            changed |= watch < 0 or bool(self._watched.get(watch, set()) & self._folders)
        if self._watch(inotify) or changed:
            self._tell_soon()

    def _tell_soon(self) -> None:
        if self._timer is None:
            self._timer = running().call_later(_TOGETHER, self._tell)

    def _tell(self) -> None:
        self._timer = None
        self._on_change()
