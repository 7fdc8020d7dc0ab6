# SPDX-License-Identifier: LGPL-2.1-or-later
"""Other hypervisors on this machine that want the CPU's extension for themselves."""

from __future__ import annotations

from types import MappingProxyType
from typing import NamedTuple

from nestd.host.kmod import Kmod
from nestd.host.root import Root

_MODULES = MappingProxyType({"vboxdrv": "VirtualBox", "vmmon": "VMware Workstation"})


class Other(NamedTuple):
    """One that is loaded. `users`: how many processes have its device open; 0: it holds nothing."""

    name: str
    module: str
    users: int


def others(root: Root, kmod: Kmod) -> tuple[Other, ...]:
    """Those whose module is loaded. Raises OSError, Malformed."""
    found = []
    for module, name in _MODULES.items():
        if root.exists(f"/sys/module/{module}/initstate"):
            # Its own further modules (vboxnetflt ...) count in refcnt, and use no CPU.
            modules = len(root.names(f"/sys/module/{module}/holders"))
            found.append(Other(name, module, max(0, kmod.refcnt(module) - modules)))
    return tuple(found)
