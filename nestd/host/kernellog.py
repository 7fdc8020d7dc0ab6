# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the kernel has said since it was booted."""

from __future__ import annotations

import os
import re

from nestd.errors import ToolFailed, ToolMissing
from nestd.host.commands import Commands
from nestd.host.root import Root

# A journal of many gigabytes on a slow disk takes its time; it is asked once.
_LIMIT = 10.0
_RECORD = 8192  # the kernel's longest record (kernel/printk/printk.c, PRINTK_MESSAGE_MAX)


async def lines(root: Root, commands: Commands, pattern: str) -> tuple[str, ...]:
    """The lines of this boot that match `pattern` (a regular expression that PCRE and Python read alike).

    From the journal; where that has none (no journal, no journalctl) from /dev/kmsg, as far as
    that can be read and has not been overwritten. Nothing found proves nothing.
    """
    found: tuple[str, ...] = ()
    try:
        done = await commands.run(
            *("journalctl", "--dmesg", "--boot", "--output=cat", "--quiet", "--no-pager"),
            *("--case-sensitive=yes", f"--grep={pattern}"),
            limit=_LIMIT,
        )
        # Its exit status is 1 with no match, and its remarks are no lines of the kernel.
        found = tuple(line for line in done.out.splitlines() if re.search(pattern, line))
    except (ToolMissing, ToolFailed):
        pass  # /dev/kmsg is the other way
    return found or tuple(line for line in _kmsg(root) if re.search(pattern, line))


def _kmsg(root: Root) -> tuple[str, ...]:
    """The messages in /dev/kmsg (Documentation/ABI/testing/dev-kmsg); () where it may not be read."""
    try:
        device = os.open(root.path("/dev/kmsg"), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ()
    found: list[str] = []
    try:
        while record := _record(device):
            # "6,339,5140900,-;text", and lines that begin with a blank, which are no messages.
            found += [
                line.partition(";")[2]
                for line in record.decode("utf-8", "replace").splitlines()
                if not line.startswith(" ")
            ]
    finally:
        os.close(device)
    return tuple(found)


def _record(device: int) -> bytes:
    while True:
        try:
            return os.read(device, _RECORD)
        except BrokenPipeError:
            continue  # overwritten while it was read: the next one comes
        except OSError:
            return b""  # EAGAIN: that was all
