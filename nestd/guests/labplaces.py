# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where a lab's things are, and what they are called.

What nestd remembers of labs lies in its own folder, which only root can enter. The nodes' disks belong to the
lab's owner, so they lie in another one: under the same path for QEMU, for the owner's own tools and for
messages, and out of the reach of nestd itself (ProtectSystem=strict); systemd makes and removes them.
"""

from __future__ import annotations

from nestd.guests import places

# A node is called after its lab, a dash and a number of two digits at most, and a guest's name has 40.
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,36}"
UNIT_PREFIX = "nestd-lab-"
RUNTIME_DIRECTORY = "nestd/labs"
# Below /var/lib.
STATE_DIRECTORY = "nestd-labs"


def unit(lab: str) -> str:
    """The unit of the lab's segment."""
    return f"{UNIT_PREFIX}{lab}.service"


def cleaner(lab: str) -> str:
    """The unit that never runs, of which systemd removes the state."""
    return f"nestd-clean-{lab}.service"


def runtime(lab: str) -> str:
    """The folder of the segment's socket: its user's own."""
    return f"/run/{RUNTIME_DIRECTORY}/{lab}"


def qmp(lab: str) -> str:
    """The segment's monitor."""
    return f"{runtime(lab)}/qmp"


def state(lab: str) -> str:
    """The folder of the nodes' disks, as StateDirectory= has it: below /var/lib."""
    return f"{STATE_DIRECTORY}/{lab}"


def disk(lab: str, number: int, disk: int) -> str:
    """The overlay of a node, in that folder."""
    return f"/var/lib/{state(lab)}/{number}-{disk}.qcow2"


def record(lab: str) -> str:
    """What nestd remembers of a lab, for nestd alone."""
    return f"{places.LABS}/{lab}.json"
