# SPDX-License-Identifier: LGPL-2.1-or-later
"""Replies kept as bytes: a call that differs from an earlier one in its serial alone gets the same answer.

Nothing has to be emptied when something changes: a reply is kept together with what it was made of,
and is sent again only while that is still so, which is looked at for each call anew.
"""

from collections.abc import Callable
from typing import NamedTuple

from nestd.wire import message

# Bytes of all calls and replies together, each with what Python needs around it.
_BYTES = 512 << 10
_AROUND = 512


class _Kept(NamedTuple):
    reply: bytes
    basis: Callable[[], object]
    made_of: object


class Replies:
    """A table from calls to replies. The sender is among a call's bytes, so each has its own."""

    def __init__(self) -> None:
        self._kept: dict[bytes, _Kept] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, call: message.Message, reply: bytes, basis: Callable[[], object], made_of: object) -> None:
        """Keep the bytes that answered a call. They are true while `basis` gives what equals `made_of`."""
        if not call.alike:
            return
        size = len(call.alike) + len(reply) + _AROUND
        if self._bytes + size > _BYTES:
            self._kept.clear()
            self._bytes = 0
        if call.alike not in self._kept and size <= _BYTES:
            self._bytes += size
            self._kept[call.alike] = _Kept(reply, basis, made_of)

    def find(self, call: message.Message) -> bytes | None:
        """The reply to an earlier call that was alike, if it would still be the answer.

        For `message.again`. Raises what the reply's `basis` raises.
        """
        kept = self._kept.get(call.alike)
        if kept is None:
            return None
        if kept.basis() == kept.made_of:
            return kept.reply
        del self._kept[call.alike]
        self._bytes -= len(call.alike) + len(kept.reply) + _AROUND
        return None
