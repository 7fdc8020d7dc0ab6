# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where the programs are that a guest's unit starts: QEMU, and what prepares its files."""

from __future__ import annotations

import os

from nestd.errors import LaunchFailed
from nestd.guests.prepare import ISO_PROGRAMS
from nestd.host.root import Root

# Fedora and RHEL call it qemu-kvm, and RHEL has it outside of PATH.
QEMU = ("qemu-system-x86_64", "qemu-kvm")
_BESIDE_PATH = ("/usr/libexec",)
_MISSING = {
    QEMU: (
        f"{QEMU[0]} is not installed: install the package qemu-system-x86 (Debian, Ubuntu) "
        "or qemu-kvm (Fedora)."
    ),
    ISO_PROGRAMS: (
        "Nothing here can make the disk that carries user-data to the guest: install libarchive-tools "
        f"(Debian, Ubuntu) or bsdtar (Fedora). Any of {', '.join(ISO_PROGRAMS)} will do."
    ),
    ("qemu-img",): (
        "qemu-img is not installed: install the package qemu-utils (Debian, Ubuntu) or qemu-img (Fedora)."
    ),
}


def find(root: Root, path: str, names: tuple[str, ...]) -> str:
    """The absolute path of the first of `names` in `path`, as PATH has it. LaunchFailed: none is there."""
    folders = [folder for folder in path.split(":") if folder.startswith("/")]
    for name in names:
        for folder in (*folders, *_BESIDE_PATH):
            program = root.path(f"{folder}/{name}")
            if os.path.isfile(program) and os.access(program, os.X_OK):
                return program
    raise LaunchFailed(
        _MISSING.get(names, f"{names[0]} is not installed: no package of the system goes without it.")
    )
