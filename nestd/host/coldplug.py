# SPDX-License-Identifier: LGPL-2.1-or-later
"""The end of udev's coldplug: at boot it loads the drivers of what the machine has, the CPU's among them."""

from __future__ import annotations

from nestd import log
from nestd.errors import ToolFailed, ToolMissing
from nestd.host.commands import Commands

# There as soon as one of KVM's drivers runs (virt/kvm/kvm_main.c, kvm_init); no need to wait for the rest.
_KVM = "/sys/devices/virtual/misc/kvm"
# Seconds in which udevadm ends by itself after its own limit.
_GRACE = 5.0


async def over(commands: Commands, limit: float) -> None:
    """Return when udev has nothing left to do, or KVM's driver runs, or after `limit` seconds (udevadm(8)).

    At once where the coldplug is long over, and where there is no udev.
    """
    argv = ("udevadm", "settle", f"--timeout={limit:g}", f"--exit-if-exists={_KVM}")
    try:
        done = await commands.run(*argv, limit=limit + _GRACE)
    except ToolMissing:
        return
    except ToolFailed as failure:
        log.warning(f"Whether udev is still loading drivers cannot be told, so nestd goes on: {failure}")
        return
    if done.code:
        log.warning(f"udev is still busy after {limit:g} s, and has not loaded KVM's driver; nestd goes on.")
