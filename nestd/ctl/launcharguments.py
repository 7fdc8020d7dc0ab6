# SPDX-License-Identifier: LGPL-2.1-or-later
"""The options of `nestctl launch`."""

from __future__ import annotations

import argparse

from .argumenttypes import count, disk, path, size, word
from .guesttypes import forward, network, user_data


def add_cpu(part: argparse.ArgumentParser) -> None:
    """Give a parser what makes a guest's CPU."""
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


def add(part: argparse.ArgumentParser) -> None:
    """Give a parser all that a guest may be launched with."""
    add_guest(part)
    part.add_argument(
        "--network",
        metavar="NETWORK",
        type=network,
        help="none (default), user (out through this machine), or lab=NAME (the lab's own)",
    )
    part.add_argument(
        "--forward",
        dest="forwards",
        metavar="PORT",
        type=forward,
        action="append",
        default=[],
        help="[tcp|udp:][ADDRESS:]HOSTPORT-GUESTPORT: a port of this machine that leads to the guest; the "
        "address is 127.0.0.1 by default, the network user (may be repeated)",
    )
    part.add_argument("--console", action="store_true", help="attach to the console afterwards")


def add_guest(part: argparse.ArgumentParser) -> None:
    """The same, but for what the nodes of a lab do not have."""
    add_cpu(part)
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
    part.add_argument("--cdrom", metavar="FILE", type=path, help="a CD image, which is only read")
    part.add_argument("--kernel", metavar="FILE", type=path, help="boot this kernel")
    part.add_argument("--initrd", metavar="FILE", type=path, help="its initial file system")
    part.add_argument("--append", metavar="TEXT", type=word, help="its command line")
    part.add_argument("--firmware", choices=("bios", "uefi"), help="what boots the guest (default bios)")
    part.add_argument("--vnc", action="store_true", help="a screen for VNC, on a unix socket of the guest's")
    part.add_argument(
        "--user-data", metavar="FILE", type=user_data, help="cloud-init's user data; - is standard input"
    )
    part.add_argument(
        "--extra-arg",
        dest="extra_args",
        metavar="WORD",
        type=word,
        action="append",
        default=[],
        help="hand this to QEMU as it is, such as --extra-arg=-rtc (may be repeated); an administrator must "
        "allow it each time",
    )
    part.add_argument("--user", metavar="USER", type=word, help="run QEMU as this user (root only)")
    part.add_argument(
        "--allow-no-nesting", action="store_true", help="start even if the guest cannot get the extension"
    )
