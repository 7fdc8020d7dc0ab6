# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the driver came up with in this boot: judged once, by the first nestd that sees it run.

A later one, and a later look, cannot tell any more; so the judgement is kept until the next boot.
"""

from __future__ import annotations

from nestd import log
from nestd.host.root import Root
from nestd.model import Drift, Nesting
from nestd.nesting import boot
from nestd.nesting.status import Reading
from nestd.nesting.store import THIS_BOOT, Store

_RECORD = "arrival"
_NAMELESS = frozenset({boot.COMMAND_LINE, boot.KERNEL_DEFAULT})


class Arrival:
    """`drift` is what came up instead of what was told; None: it was that, or it counts no more."""

    def __init__(self, root: Root) -> None:
        self._store = Store(root, THIS_BOOT)
        self._judged = False
        self.drift: Drift | None = None

    def restore(self) -> None:
        """Read what an earlier daemon of this boot judged."""
        try:
            match self._store.load(_RECORD):
                case None:
                    return
                case {"expected": "on" | "off" as told, "actual": "on" | "off" as is_so, "cause": str(cause)}:
                    self.drift = Drift(Nesting(told), Nesting(is_so), cause)
                case {"cause": ""}:
                    self.drift = None
                case _:
                    self._store.set_aside(_RECORD)
            self._judged = True
        except OSError as failure:
            log.error(f"What the driver came up with in this boot cannot be read: {failure}")

    def judge(self, reading: Reading, expected: Nesting | None) -> None:
        """The driver runs; `expected` is what nestd was told. Only the first time counts."""
        if self._judged:
            return
        self._judged = True
        if expected is None:
            return
        actual = reading.status.nested
        if actual is not expected:
            self.drift = Drift(expected, actual, _cause(reading, expected))
        self._keep()

    def over(self) -> None:
        """nestd was told anew, or the driver was loaded anew: what came up counts no more."""
        if self.drift is not None or not self._judged:
            self._judged, self.drift = True, None
            self._keep()

    def _keep(self) -> None:
        drift = self.drift
        try:
            self._store.save(_RECORD, drift._asdict() if drift else {"cause": ""})
        except OSError as failure:
            log.error(f"Why the driver came up as it did is not kept when nestd is restarted: {failure}")


def _cause(reading: Reading, expected: Nesting) -> str:
    """Who decided it, as far as it can be told, as a clause."""
    status = reading.status
    if reading.driver is None:
        return "it came up so in this boot"
    # By what this kernel was given; the status tells of the next one.
    configuration = reading.configuration
    following = configuration.next_boot
    if following is not None and following.release not in ("", configuration.release):
        configuration = configuration.renewed()  # that initramfs is another kernel's
    here = boot.solve(configuration._replace(next_boot=None), reading.driver, status.driver_state)
    if here.nested is status.nested:
        cause = f"it came up so in this boot, as {_named(here.source)} gives {here.nested}"
        if status.nested_at_boot is expected:
            cause += f"; {_named(status.boot_source)} gives {expected} to the next boot"
        return cause
    if status.nested_at_boot is status.nested:
        return f"it came up so in this boot, as {_named(status.boot_source)} gives {status.nested}"
    return (
        f"it came up so in this boot, though {_named(here.source)} gives {here.nested}: the driver was "
        "loaded by an initramfs that has an older configuration, or by somebody with other arguments"
    )


def _named(source: str) -> str:
    return f"the {source}" if source in _NAMELESS else source
