# SPDX-License-Identifier: LGPL-2.1-or-later
"""The machine as one value: everything above this floor reaches it through here."""

import os
from typing import TYPE_CHECKING, NamedTuple, Optional, Protocol

from nestd.host.commands import Commands
from nestd.host.kmod import Kmod
from nestd.host.kvm import Kvm
from nestd.host.root import Root
from nestd.model import KvmAnswer

if TYPE_CHECKING:
    from nestd.host.units import Units


class AsksKvm(Protocol):
    """What /dev/kvm can be asked."""

    def ask(self) -> KvmAnswer:
        """Open /dev/kvm for a moment and ask; never raises."""


class Host(NamedTuple):
    """The readers and tools of one machine. `release` is what `uname -r` says.

    `units` is its systemd, which runs long tools outside nestd's sandbox; None: they run as children.
    """

    root: Root
    commands: Commands
    kmod: Kmod
    kvm: AsksKvm
    release: str
    units: Optional["Units"] = None

    @classmethod
    def running(cls) -> "Host":
        """The machine that this process runs on."""
        root = Root()
        commands = Commands()
        release = os.uname().release
        return cls(root, commands, Kmod(root, commands, release), Kvm(root), release)
