# SPDX-License-Identifier: LGPL-2.1-or-later
"""What this machine itself runs in."""

from __future__ import annotations

from nestd.errors import ToolFailed, ToolMissing
from nestd.host.commands import Commands


async def virtualization(commands: Commands, *options: str) -> str:
    """systemd-detect-virt's word ("kvm", "docker", ... or "none"), "" where it is not installed.

    With the option `--vm` containers do not count.

    Its exit status is 1 with "none" (systemd-detect-virt(1)), so it is the word that counts.
    Raises ToolFailed if it says nothing, or not in time.
    """
    try:
        done = await commands.run("systemd-detect-virt", *options, limit=10.0)
    except ToolMissing:
        return ""
    word = done.out.strip()
    if not word:
        raise ToolFailed(("systemd-detect-virt",), done.code, done.err)
    return word
