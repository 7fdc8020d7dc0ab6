# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where QEMU is."""

from __future__ import annotations

import os

from nestd.errors import LaunchFailed
from nestd.host.root import Root

# Fedora and RHEL call it qemu-kvm, and RHEL has it outside of PATH.
_NAMES = ("qemu-system-x86_64", "qemu-kvm")
_BESIDE_PATH = ("/usr/libexec",)


def find(root: Root, path: str) -> str:
    """QEMU's absolute path, looked for in `path` (as PATH has it). LaunchFailed: it is not installed."""
    folders = [folder for folder in path.split(":") if folder.startswith("/")]
    for name in _NAMES:
        for folder in (*folders, *_BESIDE_PATH):
            program = root.path(f"{folder}/{name}")
            if os.path.isfile(program) and os.access(program, os.X_OK):
                return program
    raise LaunchFailed(
        f"{_NAMES[0]} is not installed: install the package qemu-system-x86 (Debian, Ubuntu) "
        "or qemu-kvm (Fedora)."
    )
