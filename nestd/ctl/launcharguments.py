# SPDX-License-Identifier: LGPL-2.1-or-later
"""The options of `nestctl launch`."""

from __future__ import annotations

import argparse

from .argumenttypes import absolute, count, disk, size, word


def add(part: argparse.ArgumentParser) -> None:
    """Give a parser all that a guest may be launched with."""
    part.add_argument(
        "--cpu", metavar="M", type=word, help="host (default) or a QEMU model; the extension is added"
    )
    part.add_argument(
        "--cpu-feature",
        dest="features",
        type=word,
        metavar="FLAG",
        action="append",
        default=[],
        help="add (+) or take away (-) a CPU flag, such as --cpu-feature=-avx2 (may be repeated)",
    )
    part.add_argument("--memory", metavar="SIZE", type=size, help="such as 512M or 2G (default 512M)")
    part.add_argument("--vcpus", metavar="N", type=count, help="how many virtual CPUs (default 1)")
    part.add_argument(
        "--disk",
        dest="disks",
        metavar="DISK",
        type=disk,
        action="append",
        default=[],
        help="path=FILE,format=raw|qcow2[,readonly][,snapshot] (may be repeated)",
    )
    part.add_argument("--kernel", metavar="FILE", type=absolute, help="boot this kernel")
    part.add_argument("--initrd", metavar="FILE", type=absolute, help="its initial file system")
    part.add_argument("--append", metavar="TEXT", type=word, help="its command line")
    part.add_argument("--user", metavar="USER", type=word, help="run QEMU as this user (root only)")
    part.add_argument(
        "--allow-no-nesting", action="store_true", help="start even if the guest cannot get the extension"
    )
    part.add_argument("--console", action="store_true", help="attach to the console afterwards")
