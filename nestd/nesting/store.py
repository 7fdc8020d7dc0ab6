# SPDX-License-Identifier: LGPL-2.1-or-later
"""Small records that outlive the daemon, one JSON object a file, for root alone.

Those below /var/lib/nestd outlive a reboot too, those below /run/nestd end with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nestd import log
from nestd.host import files
from nestd.host.root import Root

LASTING = "/var/lib/nestd"
THIS_BOOT = "/run/nestd"
# The journal of the change under way (nestd/nesting/ledger.py).
CHANGE = f"{LASTING}/change"
# The unit's own settings make the folders otherwise; /run/nestd is walked through by the guests' users.
_MODES = {LASTING: 0o700}
_OTHER_MODE = 0o755


class Store:
    """The records in one folder. OSErrors pass: ENOSPC, EROFS, EIO, EPERM for what others may write to ..."""

    def __init__(self, root: Root, folder: str) -> None:
        self._root = root
        self._folder = folder

    def path(self, name: str) -> str:
        """Where the record of that name is."""
        return f"{self._folder}/{name}"

    def load(self, name: str) -> dict[str, Any] | None:
        """The record; None if there is none, or none that can be understood, which is set aside."""
        text = files.read(self._root, self.path(name))
        if text is None:
            return None
        import json  # noqa: PLC0415 -- only where there is a record

        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            return value
        self.set_aside(name)
        return None

    def save(self, name: str, record: Mapping[str, Any]) -> None:
        """Keep a record in place of the one before; it is on the disk when this returns."""
        import json  # noqa: PLC0415 -- only where something changes

        files.make_folder(self._root, self._folder, _MODES.get(self._folder, _OTHER_MODE))
        files.replace(self._root, self.path(name), json.dumps(record), 0o600)

    def forget(self, name: str) -> None:
        """Remove a record; none is fine."""
        files.remove(self._root, self.path(name))

    def set_aside(self, name: str) -> None:
        """Keep a record that cannot be understood under another name, for a person to look at, and say so."""
        path = self.path(name)
        log.error(
            f"{path} cannot be understood, so it is not believed: it is kept as {path}.broken. "
            "Look at it, then remove it."
        )
        text = files.read(self._root, path)
        if text is not None:
            files.replace(self._root, f"{path}.broken", text, 0o600)
        self.forget(name)
