# SPDX-License-Identifier: LGPL-2.1-or-later
"""Files that tell the fleet's tools of this machine: replaced at each change, gone when nestd ends.

What nobody watches any more is not told either: an old file would promise what may long be otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from nestd import log, tasks
from nestd.host import files
from nestd.host.configuration import Settings
from nestd.host.root import Root
from nestd.text import metrics

Write = Callable[[metrics.Seen], str]

# Seconds from the first word of a change to the file: what else a change brings comes within them, and a
# storm of changes costs four files a second at most.
_GATHER = 0.25
# Seconds that a disk which hangs may hold up the end.
_PATIENCE = 5.0


class Fleet:
    """The files of nestd.conf's section [Export]; `look` tells what is."""

    def __init__(self, root: Root, look: Callable[[], metrics.Seen]) -> None:
        self._root = root
        self._look = look
        self._files: Mapping[str, Write] = {}
        # What stands in each file that was written; None where it could not be, which was said.
        self._written: dict[str, str | None] = {}
        self._stale = False
        self._task: tasks.Task[None] | None = None

    def configure(self, settings: Settings) -> None:
        """From now on write these files, and no longer those of before."""
        wanted = {settings.prometheus: metrics.prometheus, settings.features: metrics.features}
        self._files = {path: write for path, write in wanted.items() if path}
        self.told()

    def told(self) -> None:
        """Something has changed."""
        self._stale = True
        if self._task is None:
            self._task = tasks.create_task(self._follow())

    async def close(self) -> None:
        """Write what is under way, and take the files away."""
        self._files = {}
        self.told()
        if self._task is not None:
            await tasks.wait({self._task}, _PATIENCE)

    async def _follow(self) -> None:
        try:
            while self._stale:
                if self._files:
                    await tasks.sleep(_GATHER)
                self._stale = False
                seen = self._look()
                for path in [path for path in self._written if path not in self._files]:
                    await self._withdraw(path)
                for path, write in self._files.items():
                    await self._publish(path, write(seen))
        finally:
            self._task = None

    async def _publish(self, path: str, text: str) -> None:
        if self._written.get(path) == text:
            return
        try:
            await tasks.to_thread(files.publish, self._root, path, text)
            self._written[path] = text
        except OSError as failure:
            if path not in self._written or self._written[path] is not None:
                log.error(
                    f"{path} cannot be written, so it may tell of what is no more: {failure.strerror}. See "
                    "[Export] in nestd.conf(5); it is tried again at the next change."
                )
            self._written[path] = None

    async def _withdraw(self, path: str) -> None:
        del self._written[path]
        try:
            await tasks.to_thread(files.withdraw, self._root, path)
        except OSError as failure:
            log.error(f"{path} cannot be removed, and tells of what may be no more: {failure.strerror}.")
