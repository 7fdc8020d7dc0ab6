# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which of a guest's files are block devices, and how its unit is let use them.

The unit's DevicePolicy= keeps all devices away; what is found here is let through, and then the node's own
mode decides, as for every file: QEMU gets what its user could open anyway. Two things keep it at that:

- Block devices alone. The unit has the group kvm beside its user's own, which owns nodes of characters that
  the user may not have (/dev/vhost-net, /dev/udmabuf), and no block device.
- systemd is given numbers, never somebody's path: it looks up a path as PID 1, and links in /dev/shm are
  anybody's, who could have PID 1 wait for a file system that hangs. So nestd looks, in folders of root's
  alone, and systemd takes /dev/block/MAJOR:MINOR at its word (systemd 240, device_path_parse_major_minor).
"""

from __future__ import annotations

import os
import stat

from nestd.guestmodel import GuestSpec
from nestd.host.root import Root


def find(root: Root, spec: GuestSpec) -> dict[str, str]:
    """Those of disks, of overlays' bases and of the CD: their paths, each with what DeviceAllow= calls it."""
    paths = [*(disk.path for disk in spec.disks), *(overlay.base for overlay in spec.overlays), spec.cdrom]
    nodes = {path: _node(root, path) for path in paths if path.startswith("/dev/")}
    return {path: node for path, node in nodes.items() if node}


def _node(root: Root, path: str) -> str:
    """Its name; empty where there is none, or none that root has put there: QEMU says what is wrong."""
    parts = path.split("/")
    if ".." in parts:
        return ""
    try:
        for end in range(2, len(parts)):
            folder = os.lstat(root.path("/".join(parts[:end])))
            if not stat.S_ISDIR(folder.st_mode) or folder.st_uid != 0 or folder.st_mode & 0o022:
                return ""
        found = os.stat(root.path(path))
    except OSError:
        return ""
    if not stat.S_ISBLK(found.st_mode):
        return ""
    return f"/dev/block/{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"
