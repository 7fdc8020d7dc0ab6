# SPDX-License-Identifier: LGPL-2.1-or-later
"""What one word of a guest's options may be, as argumenttypes: its network, and what it is told."""

from __future__ import annotations

import argparse
import re
import sys

from .argumenttypes import word

_USER_DATA = 512 << 10  # bytes, as Launch has it
_FORWARD = re.compile(r"(?:(?:tcp|udp):)?(?:[0-9.]+:)?[0-9]+-[0-9]+")


def network(text: str) -> dict[str, str]:
    """The options of Launch's network, from `none`, `user` or `lab=NAME`."""
    kind, _, lab = text.partition("=")
    if text in ("none", "user"):
        return {"kind": kind}
    if kind == "lab" and lab:
        return {"kind": kind, "lab": word(lab)}
    raise argparse.ArgumentTypeError(f"{text!r} is no network: write none, user or lab=NAME")


def forward(text: str) -> str:
    """A forwarded port, with its protocol."""
    if not _FORWARD.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no forwarded port: write [tcp|udp:][ADDRESS:]HOSTPORT-GUESTPORT, such as 2222-22"
        )
    return text if text.startswith(("tcp:", "udp:")) else f"tcp:{text}"


def user_data(path: str) -> bytes:
    """The content of a file, or of standard input for `-`."""
    if path == "-" and sys.stdin is None:
        raise argparse.ArgumentTypeError("standard input is closed")
    try:
        if path == "-":
            data = sys.stdin.buffer.read(_USER_DATA + 1)
        else:
            with open(path, "rb") as file:
                data = file.read(_USER_DATA + 1)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{path!r} cannot be read: {error.strerror}") from None
    if not data:
        raise argparse.ArgumentTypeError(f"{path!r} is empty")
    if len(data) > _USER_DATA:
        raise argparse.ArgumentTypeError(
            f"{path!r} has more than {_USER_DATA >> 10} KiB: let the guest fetch the rest"
        )
    return data
