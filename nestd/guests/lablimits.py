# SPDX-License-Identifier: LGPL-2.1-or-later
"""What stands in the way of a new lab: one of its name that could not be read, and too many of its owner."""

from __future__ import annotations

from collections.abc import Iterable

from nestd.errors import LabExists, LimitsExceeded
from nestd.guests import labplaces, labstore
from nestd.host.root import Root

# Each is kept in memory and in /var/lib/nestd, with up to a MiB of user-data, whether it runs or not.
MOST = 32


def check(root: Root, name: str, uid: int, owners: Iterable[int]) -> None:
    """Return if `uid` may have the lab `name`; `owners` are those of all labs, this one included.

    LabExists: there is a record of it that was not taken up, and so may be disks. LimitsExceeded.
    """
    if labstore.kept(root, name):
        raise LabExists(
            f"There is a lab {name} that nestd could not take up (`journalctl -u nestd` says why): restart "
            f"nestd, remove {labplaces.record(name)}, or choose another name."
        )
    if list(owners).count(uid) > MOST:
        raise LimitsExceeded(f"A user has at most {MOST} labs: remove one first (`nestctl lab remove`).")
