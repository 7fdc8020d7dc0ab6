# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where boot partitions are mounted, and the EFI variables of the boot loader interface.

Source: systemd.io/BOOT_LOADER_INTERFACE; Documentation/filesystems/efivarfs.rst.
"""

from __future__ import annotations

from nestd.host.root import Root

# Where the EFI system partition and the extended boot loader partition are mounted.
PARTITIONS = ("/efi", "/boot", "/boot/efi")
_VENDOR = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"


def variable_path(name: str) -> str:
    """The file of such a variable."""
    return f"/sys/firmware/efi/efivars/{name}-{_VENDOR}"


def variable(root: Root, name: str) -> str:
    """Its text; empty where there is none, or it cannot be read."""
    try:
        text = root.read(variable_path(name))
    except OSError:
        return ""
    # Four bytes of attributes, then UTF-16.
    data = (text or "").encode("utf-8", "surrogateescape")[4:]
    return data.decode("utf-16-le", "replace").rstrip("\0")
