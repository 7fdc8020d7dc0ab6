# SPDX-License-Identifier: LGPL-2.1-or-later
"""A small system in a folder, into which rpm and pacman install for real, scriptlets included."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

# Each writes down how it was called, with the folder that systemd's state is in.
_LOGS = '#!/bin/sh\necho "${0##*/} $*" >> /calls\n'
_APPLETS = ("cat", "chmod", "ls", "mkdir", "rm", "rmdir", "sh", "touch")


class Root:
    """busybox, and in the place of systemd's programs some that only write down what they are told.

    `booted`: systemd runs, as sd_booted(3) sees it.
    """

    def __init__(self, top: Path, *, booted: bool = True) -> None:
        self.top = top
        for folder in ("bin", "dev", "etc/modprobe.d", "run", "tmp", "usr/lib/systemd", "var/lib/pacman"):
            (top / folder).mkdir(parents=True)
        if booted:
            (top / "run/systemd/system").mkdir(parents=True)
        os.mknod(top / "dev/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        shutil.copy("/bin/busybox", top / "bin")
        for applet in _APPLETS:
            (top / "bin" / applet).symlink_to("busybox")
        (top / "bin/bash").symlink_to("busybox")
        for program in ("bin/systemctl", "bin/busctl", "usr/lib/systemd/systemd-update-helper"):
            (top / program).write_text(_LOGS)
            (top / program).chmod(0o755)

    def calls(self) -> list[str]:
        """What systemd's programs were told since it was asked last."""
        log = self.top / "calls"
        if not log.exists():
            return []
        told = log.read_text().splitlines()
        log.unlink()
        return told

    def write(self, path: str, text: str) -> None:
        (self.top / path).parent.mkdir(parents=True, exist_ok=True)
        (self.top / path).write_text(text)

    def there(self, *paths: str) -> list[str]:
        """Which of these are there."""
        return [path for path in paths if (self.top / path).exists()]
