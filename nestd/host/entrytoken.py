# SPDX-License-Identifier: LGPL-2.1-or-later
"""What kernel-install may name this system's folders and entries on a boot partition after.

Source: kernel-install(8) of systemd 252 and 257, --entry-token=.
"""

from __future__ import annotations

import re

from nestd.host.root import Root

_FILES = ("/etc/kernel/entry-token", "/etc/machine-id")
_KEYS = (
    ("/etc/machine-info", ("KERNEL_INSTALL_MACHINE_ID",)),
    ("/etc/os-release", ("IMAGE_ID", "ID")),
    ("/usr/lib/os-release", ("IMAGE_ID", "ID")),
)


def tokens(root: Root) -> tuple[str, ...]:
    """Each once, as kernel-install prefers them; none with a character that has no place in a file's name."""
    found = [(root.read(path) or "").partition("\n")[0].strip() for path in _FILES]
    for path, keys in _KEYS:
        rows = dict(row.partition("=")[::2] for row in (root.read(path) or "").split("\n"))
        found += [rows.get(key, "").strip().strip("\"'") for key in keys]
    # Not only dots: these would be other folders.
    fit = (one for one in (*found, "Default") if re.fullmatch(r"[\w.+-]*[\w+-][\w.+-]*", one))
    return tuple(dict.fromkeys(fit))
