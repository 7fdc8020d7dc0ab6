# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a guest wrote to its serial console, read out of its own mount namespace."""

from __future__ import annotations

import os
import stat

from nestd.errors import Failed
from nestd.guestmodel import GuestRecord
from nestd.guests import places
from nestd.host.root import Root

_LIMIT = 1 << 20


def read(root: Root, record: GuestRecord) -> bytes:
    """The first MiB of what the running guest wrote. Failed.

    It lies in the guest's own mount namespace, which /proc/PID/root leads to (proc(5)); this
    needs CAP_SYS_PTRACE.
    """
    name = record.name
    path = root.path(f"/proc/{record.pid}/root{places.console_log(name)}")
    try:
        # Nor a FIFO nor a link of the user's making.
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(file)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != record.owner:
                raise Failed(f"The console's log of {name} was replaced by something else.")
            return os.read(file, _LIMIT)
        finally:
            os.close(file)
    except OSError as error:
        raise Failed(f"The console's log of {name} cannot be read: {error.strerror}.") from error
