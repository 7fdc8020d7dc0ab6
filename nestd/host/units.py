# SPDX-License-Identifier: LGPL-2.1-or-later
"""Transient units of systemd over D-Bus. Source: org.freedesktop.systemd1(5)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from nestd import tasks
from nestd.errors import NO_REPLY, CallFailed, NestdError
from nestd.host.services import Bus, Signal, bus_label_escape, plain
from nestd.wire.library import Variant

_SYSTEMD = "org.freedesktop.systemd1"
_MANAGER_PATH = "/org/freedesktop/systemd1"
_MANAGER = _SYSTEMD + ".Manager"
_PROPERTIES = "org.freedesktop.DBus.Properties"
UNIT = _SYSTEMD + ".Unit"
SERVICE = _SYSTEMD + ".Service"
OVER = frozenset({"inactive", "failed"})
# The properties that are remembered of a unit that is watched. It has some 300, of which most never change.
_KEPT = frozenset(
    {
        *("ActiveState", "Result", "InvocationID", "MainPID"),
        *("ExecMainStatus", "ExecMainStartTimestamp", "ExecMainExitTimestamp"),
    }
)


class UnitExists(NestdError):
    """There is a unit of that name already."""


class JobFailed(NestdError):
    """A unit did not start; `result` is the job's: `failed`, `canceled`, `timeout`, `dependency` ..."""

    def __init__(self, unit: str, result: str) -> None:
        super().__init__(f"{unit}: {result}")
        self.result = result


def invocation(known: Mapping[str, Any]) -> str:
    """The INVOCATION_ID of the unit's run (systemd.exec(5)), by its properties; empty without one."""
    return bytes(known.get("InvocationID", b"")).hex()


def unit_path(unit: str) -> str:
    """The object path of a unit."""
    return f"{_MANAGER_PATH}/unit/{bus_label_escape(unit)}"


class UnitWatch:
    """What systemd says of one unit: `known` are what counts of its properties (_KEPT), as they change.

    `ended` is done, with `known`, once the unit is inactive or failed. It counts from the first
    `settle` on: what a name was before its unit was started is not the unit's end.
    """

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self.known: dict[str, Any] = {}
        self.ended: tasks.Future[Mapping[str, Any]] = tasks.Future()
        self.heard = 0  # how many times systemd has told of it
        self._settled = False
        self._unsubscribe: Callable[[], Awaitable[None]] | None = None

    async def start(self, bus: Bus) -> None:
        """Listen. Only this unit's own object is matched: other units wake nobody here."""
        rule = (
            f"type='signal',sender='{_SYSTEMD}',path='{unit_path(self.unit)}',"
            f"interface='{_PROPERTIES}',member='PropertiesChanged'"
        )
        self._unsubscribe = await bus.subscribe(rule, self._changed)

    def settle(self, properties: Mapping[str, Any]) -> None:
        """Take in what the unit's properties are now, as read after its start."""
        self._settled = True
        self._learn(properties)

    async def close(self) -> None:
        """Stop listening; `ended` is cancelled if it has not come. Safe to call twice."""
        self.ended.cancel()
        unsubscribe, self._unsubscribe = self._unsubscribe, None
        if unsubscribe:
            await unsubscribe()

    def _changed(self, signal: Signal) -> None:
        self.heard += 1
        self._learn(plain(signal.body[1]))

    def _learn(self, properties: Mapping[str, Any]) -> None:
        self.known.update({name: properties[name] for name in _KEPT & properties.keys()})
        if self._settled and self.known.get("ActiveState") in OVER and not self.ended.done():
            self.ended.set_result(self.known)


class Units:
    """systemd's manager. Every method may raise CallFailed besides what it names."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._subscribed = False

    async def start_transient(
        self,
        unit: str,
        properties: Sequence[tuple[str, Variant]],
        limit: float = 30.0,
        fds: Sequence[int] = (),
    ) -> None:
        """Start a transient unit and wait, `limit` seconds, for its job. UnitExists, JobFailed.

        A property of the type h is a place in `fds`, which stay the caller's.
        """
        await self._announce()
        results: dict[str, str] = {}
        news = tasks.Event()

        def removed(signal: Signal) -> None:
            _, job, _, result = signal.body
            results[job] = result
            news.set()

        # Not narrowed by arg2, the unit: dbus-broker 33 lets no signal with a number before it through.
        rule = f"type='signal',sender='{_SYSTEMD}',path='{_MANAGER_PATH}',interface='{_MANAGER}'"
        unsubscribe = await self._bus.subscribe(f"{rule},member='JobRemoved'", removed)
        try:
            async with tasks.timeout(limit):
                pairs = [[name, value] for name, value in properties]
                body = [unit, "fail", pairs, []]
                signature = "ssa(sv)a(sa(sv))"
                [job] = await self._manager("StartTransientUnit", signature, body, fds=fds, limit=limit)
                while job not in results:
                    news.clear()
                    await news.wait()
        except TimeoutError:
            raise JobFailed(unit, "timeout") from None
        except CallFailed as error:
            if error.name == f"{_SYSTEMD}.UnitExists":
                raise UnitExists(unit) from error
            if error.name == NO_REPLY:
                raise JobFailed(unit, "timeout") from error
            raise
        finally:
            await unsubscribe()
        if results[job] != "done":
            raise JobFailed(unit, results[job])

    async def follow(self, unit: str) -> UnitWatch:
        """Watch a unit from now on, whether it is there yet or not. Close what is returned."""
        await self._announce()
        watch = UnitWatch(unit)
        await watch.start(self._bus)
        return watch

    async def stop(self, unit: str) -> None:
        """Have a unit stopped; does not wait. One that is not there is fine."""
        await self._manager("StopUnit", "ss", [unit, "replace"], missing_ok=True)

    async def kill(self, unit: str, signal: int) -> None:
        """Signal all processes of a unit. One that is not there is fine."""
        await self._manager("KillUnit", "ssi", [unit, "all", signal], missing_ok=True)

    async def reset_failed(self, unit: str) -> None:
        """Let systemd forget a failed unit. One that is not there is fine."""
        await self._manager("ResetFailedUnit", "s", [unit], missing_ok=True)

    async def clean(self, unit: str, what: str) -> None:
        """Begin to remove the folder `what` (`state` and the like) of a unit that does not run."""
        await self._manager("CleanUnit", "sas", [unit, [what]])

    async def unref(self, unit: str) -> None:
        """Let systemd forget a unit that was started with AddRef. One that is not there is fine."""
        await self._manager("UnrefUnit", "s", [unit], missing_ok=True)

    async def matching(self, pattern: str) -> dict[str, str]:
        """The loaded units whose name matches (glob(7)), each with its ActiveState."""
        [rows] = await self._manager("ListUnitsByPatterns", "asas", [[], [pattern]])
        return {row[0]: row[3] for row in rows}

    async def properties(self, unit: str, *interfaces: str) -> dict[str, Any]:
        """All properties of those interfaces, without their variants."""
        found: dict[str, Any] = {}
        for interface in interfaces or (UNIT, SERVICE):
            body = [interface]
            [answer] = await self._bus.call(_SYSTEMD, unit_path(unit), _PROPERTIES, "GetAll", "s", body)
            found |= plain(answer)
        return found

    async def settle(self, watch: UnitWatch) -> dict[str, Any]:
        """Have the watch take in what its unit's properties are now, and return all of them.

        What systemd tells while they are read is newer than some of them: then they are read again, or the
        end of the unit would be taken back, and never come.
        """
        heard = -1
        while heard != watch.heard:
            heard = watch.heard
            now = await self.properties(watch.unit)
        watch.settle(now)
        return now

    async def _manager(
        self,
        member: str,
        signature: str,
        body: Sequence[object],
        *,
        missing_ok: bool = False,
        limit: float = 25.0,
        fds: Sequence[int] = (),
    ) -> list[Any]:
        where = (_SYSTEMD, _MANAGER_PATH, _MANAGER, member)
        try:
            return await self._bus.call(*where, signature, body, limit=limit, fds=fds)
        except CallFailed as error:
            if missing_ok and error.name == f"{_SYSTEMD}.NoSuchUnit":
                return []
            raise

    async def _announce(self) -> None:
        # systemd sends no signals at all before somebody has subscribed.
        if not self._subscribed:
            try:
                await self._bus.call(_SYSTEMD, _MANAGER_PATH, _MANAGER, "Subscribe")
            except CallFailed as error:
                if error.name != f"{_SYSTEMD}.AlreadySubscribed":
                    raise
            self._subscribed = True
