# SPDX-License-Identifier: LGPL-2.1-or-later
"""The guests that have ended lately, kept for those who ask what became of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from nestd import log
from nestd.guestmodel import GuestRecord
from nestd.guests import records
from nestd.host.root import Root
from nestd.loop import Handle, running

# Of one user, and of all.
KEPT = 64
MOST = 256
SECONDS = 300.0


class _Held(NamedTuple):
    record: GuestRecord
    timer: Handle


class Ended:
    """At most KEPT guests of a user, for SECONDS each, the oldest go first; their records are files for the
    next nestd. Where there are MOST of all users, one goes of the user who has the most.

    `forgotten` is told of each that goes.
    """

    def __init__(self, root: Root, forgotten: Callable[[GuestRecord], None]) -> None:
        self._root = root
        self._forgotten = forgotten
        self._held: dict[str, _Held] = {}

    def get(self, name: str) -> GuestRecord | None:
        """The guest of that name that has ended lately, if there is one."""
        held = self._held.get(name)
        return held.record if held else None

    def keep(self, record: GuestRecord) -> bool:
        """Keep a guest that has ended; False: that was too long ago."""
        left = SECONDS - (time.time_ns() // 1000 - record.ended) / 1e6
        if left <= 0:
            self._remove(record.name)
            return False
        self._make_room(record.owner)
        self._save(record)
        # A clock that was put back keeps nobody here for longer.
        timer = running().call_later(min(left, SECONDS), self.forget, record.name)
        self._held[record.name] = _Held(record, timer)
        return True

    def learn(self, record: GuestRecord, told: GuestRecord) -> bool:
        """Keep `told`, which is more than `record`, in its place; False if it is kept no more.

        It may be that its end was too long ago.
        """
        if self.get(record.name) != record:
            return False
        self._held.pop(record.name).timer.cancel()
        if self.keep(told):
            return True
        self._forgotten(record)
        return False

    def displace(self, name: str) -> None:
        """A new guest has taken the name, and the file: forget the old one, if there is one."""
        held = self._held.pop(name, None)
        if held:
            held.timer.cancel()
            self._forgotten(held.record)

    def forget(self, name: str) -> None:
        """Forget a guest and its file."""
        self._remove(name)
        self.displace(name)

    def close(self) -> None:
        """Forget nobody any more: the next nestd does."""
        for held in self._held.values():
            held.timer.cancel()
        self._held.clear()

    def _make_room(self, owner: int) -> None:
        """Have room for one more of this user."""
        kept = Counter(held.record.owner for held in self._held.values())
        if kept[owner] >= KEPT:
            self._forget_oldest(owner)
        elif kept.total() >= MOST:
            kept[owner] += 1
            [(most, _)] = kept.most_common(1)
            self._forget_oldest(most)

    def _forget_oldest(self, owner: int) -> None:
        records = [held.record for held in self._held.values() if held.record.owner == owner]
        self.forget(min(records, key=lambda record: record.ended).name)

    def _save(self, record: GuestRecord) -> None:
        try:
            records.save(self._root, record)
        except OSError as error:
            log.warning(f"What became of the guest {record.name} cannot be kept for the next nestd: {error}")
            self._remove(record.name)  # what is there says that it runs

    def _remove(self, name: str) -> None:
        try:
            records.remove(self._root, name)
        except OSError as error:
            log.warning(f"The record of the guest {name}, which is gone, could not be removed: {error}")
