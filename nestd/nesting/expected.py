# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is expected of the running kernel: what was last told for it.

By a change of scope `runtime`, noted for this boot, or else by the drop-in. A change of scope `boot` leaves
what is expected of this boot as it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestd import log
from nestd.host.root import Root
from nestd.model import Nesting, Policy, Scope
from nestd.nesting.store import THIS_BOOT, Store

if TYPE_CHECKING:
    from nestd.nesting.steps import Wish

_RECORD = "expected"


class Expected:
    """`nested` is what is expected, as of the last `look`; None: nobody told anything."""

    def __init__(self, root: Root) -> None:
        self._store = Store(root, THIS_BOOT)
        self._noted = False
        self._note: Nesting | None = None
        self.nested: Nesting | None = None

    def restore(self) -> None:
        """Read what an earlier daemon of this boot noted."""
        try:
            match self._store.load(_RECORD):
                case None:
                    return
                case {"nested": "on" | "off" | "" as nested}:
                    self._noted, self._note = True, Nesting(nested) if nested else None
                case _:
                    self._store.set_aside(_RECORD)
        except OSError as failure:
            log.error(f"What nestd was told for this boot cannot be read: {failure}")

    def look(self, policy: Policy) -> Nesting | None:
        """What is expected; `policy` is what the configuration says that nestd was told to keep."""
        told = None if policy is Policy.UNMANAGED else Nesting(policy.value)
        self.nested = self._note if self._noted else told
        return self.nested

    def told(self, wish: Wish) -> None:
        """A wish was fulfilled."""
        match wish.scope:
            case Scope.RUNTIME:
                self._noted, self._note = True, wish.nested
            case Scope.BOTH:
                self._noted, self._note = False, None
            case Scope.BOOT:
                self._noted, self._note = True, self.nested
        try:
            if self._noted:
                self._store.save(_RECORD, {"nested": str(self._note or "")})
            else:
                self._store.forget(_RECORD)
        except OSError as failure:
            log.error(f"What is expected of this boot is not kept when nestd is restarted: {failure}")
