# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a guest's unit is told and nobody else may read: root's files, which systemd loads as credentials."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from nestd import log
from nestd.errors import LaunchFailed
from nestd.guests import places
from nestd.guests.prepare import Credential
from nestd.host import files
from nestd.host.root import Root


class Handover:
    """Keeps such files for as long as a unit starts."""

    def __init__(self, root: Root) -> None:
        self._root = root

    @contextmanager
    def files(self, guest: str, credentials: Sequence[Credential]) -> Iterator[Mapping[str, str]]:
        """The path of each credential by its name, until the end of the block. LaunchFailed: no room, say."""
        if not credentials:
            yield {}
            return
        paths = {each.name: places.handed_over(guest, each.name) for each in credentials}
        try:
            self._write({paths[each.name]: each.content for each in credentials})
            yield {name: self._root.path(path) for name, path in paths.items()}
        finally:
            for path in paths.values():
                _remove(self._root, path)

    def _write(self, contents: Mapping[str, bytes]) -> None:
        try:
            files.make_folder(self._root, places.HANDOVER, 0o700)
            for path, content in contents.items():
                files.replace(self._root, path, content.decode("utf-8", "surrogateescape"), 0o600)
        except OSError as error:
            raise LaunchFailed(
                f"user-data cannot be handed to the guest: {error.filename}: {error.strerror}."
            ) from error


def sweep(root: Root) -> None:
    """Remove what an nestd that was killed has left, before there is anything else. OSError."""
    for name in files.names(root, places.HANDOVER):
        _remove(root, f"{places.HANDOVER}/{name}")


def _remove(root: Root, path: str) -> None:
    try:
        files.remove(root, path)
    except OSError as error:
        log.warning(f"{path}, which was for a guest alone, could not be removed: {error}")
