# SPDX-License-Identifier: LGPL-2.1-or-later
"""Signals to those who asked for them, and only from the senders that they named."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from nestd import errors, log
from nestd.bus.matches import BUS, Rule, Signal
from nestd.wire import message
from nestd.wire.frame import BODY_LIMIT

VALUES = BODY_LIMIT // 4
NO_OWNER = "org.freedesktop.DBus.Error.NameHasNoOwner"

Unsubscribe = Callable[[], Awaitable[None]]


class BusCalls(Protocol):
    """The part of the connection that is needed here."""

    async def bus(self, member: str, signature: str = "", body: Sequence[object] = ()) -> list[Any]:
        """Call a method of the bus itself. Raises CallFailed."""

    def tell_bus(self, member: str, argument: str) -> None:
        """The same without an answer."""


class Subscriptions:
    """The match rules of a connection, and who owns the names in them."""

    def __init__(self, connection: BusCalls) -> None:
        self._connection = connection
        self._rules: list[tuple[Rule, Callable[[Signal], None]]] = []
        self._owners: dict[str, str] = {}

    async def add(self, rule: str, handler: Callable[[Signal], None]) -> Unsubscribe:
        """See Connection.subscribe."""
        parsed = Rule.parse(rule)
        forget_owner = await self._follow_owner(parsed.sender) if parsed.watches_owner else None
        entry = (parsed, handler)
        self._rules.append(entry)

        async def unsubscribe() -> None:
            if entry in self._rules:
                self._rules.remove(entry)
                self._connection.tell_bus("RemoveMatch", rule)
                if forget_owner is not None:
                    await forget_owner()

        try:
            await self._connection.bus("AddMatch", "s", [rule])
        except BaseException:
            await unsubscribe()
            raise
        return unsubscribe

    async def _follow_owner(self, name: str) -> Unsubscribe:
        def changed(signal: Signal) -> None:
            self._owners[name] = signal.body[2]

        rule = f"type='signal',sender='{BUS}',interface='{BUS}',member='NameOwnerChanged',arg0='{name}'"
        unsubscribe = await self.add(rule, changed)

        async def forget() -> None:
            if not any(each.sender == name for each, _ in self._rules):
                self._owners.pop(name, None)
            await unsubscribe()

        owner = ""
        try:
            [owner] = await self._connection.bus("GetNameOwner", "s", [name])
        except errors.CallFailed as error:
            if error.name != NO_OWNER:
                await forget()
                raise
        except BaseException:
            await forget()
            raise
        # What NameOwnerChanged said meanwhile is newer.
        self._owners.setdefault(name, owner)
        return forget

    def on_signal(self, received: message.Message) -> None:
        """Hand a signal to the handlers whose rule it fits."""
        header = received.header
        fitting = [x for x in self._rules if x[0].fits(header, self._owners.get(x[0].sender, x[0].sender))]
        if not fitting or received.frame.skipped:
            return
        try:
            body = received.values(VALUES)
        except errors.Malformed as error:
            log.warning(f"a signal {header.member} of {header.sender} was dropped: {error}")
            return
        signal = Signal(header.sender, header.path, header.interface, header.member, body)
        for rule, handler in fitting:
            if rule.fits_body(body):
                _handle(handler, signal)


def _handle(handler: Callable[[Signal], None], signal: Signal) -> None:
    try:
        handler(signal)
    except Exception:  # one handler's fault must not keep the signal from the others
        log.exception(f"the handler of the signal {signal.interface}.{signal.member} failed")
