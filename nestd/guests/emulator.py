# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where QEMU is."""

from __future__ import annotations

from nestd.guests import programs
from nestd.host.root import Root


def find(root: Root, path: str) -> str:
    """QEMU's absolute path, looked for in `path` (as PATH has it). LaunchFailed: it is not installed."""
    return programs.find(root, path, programs.QEMU)
