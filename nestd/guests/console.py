# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest's serial console, for somebody to talk to."""

from __future__ import annotations

from nestd.errors import Busy, Failed
from nestd.guestmodel import GuestRecord
from nestd.guests import places
from nestd.host.qmpsocket import NotTheGuest, connect
from nestd.host.root import Root


def open_console(root: Root, record: GuestRecord) -> int:
    """A descriptor of the running guest's console, for the caller to close; at once. Busy, Failed."""
    name = record.name
    try:
        console = connect(root.path(places.console(name)), record.owner)
    except BlockingIOError as error:
        raise Busy(f"The console of {name} is in use: leave it there first.") from error
    except (OSError, NotTheGuest) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise Failed(f"The console of {name} cannot be opened: {why}.") from error
    console.setblocking(True)
    return console.detach()
