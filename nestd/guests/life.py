# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest that runs: its power button, the stopping of its unit, its end. Nobody waits here for another."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from nestd import log, tasks
from nestd.errors import CallFailed, Failed, Malformed, Timeout
from nestd.guestmodel import GuestRecord, GuestState
from nestd.guests import places, records
from nestd.host.qmpsocket import NotTheGuest, QmpRefused, QmpSocket, connect
from nestd.host.root import Root
from nestd.host.units import Units, UnitWatch

POWER_BUTTON, UNIT = "power-button", "unit"
# Seconds after which systemd kills what does not end (TimeoutStopUSec of guests/sandbox.py), and until nestd
# tells that even that was in vain.
STOP_LIMIT, _END_LIMIT = 10.0, 20.0
# The longest timeout that a stop can have (bus/guest.py): the clock may have leapt since it was told.
_LONGEST = 86_400.0
# Seconds that QEMU has to take the press of the button, however little time the guest has after it.
_PRESS = (1.0, 5.0)


class Life:
    """One guest. `changed` is told its new record; `gone` is set when nothing is left of it."""

    def __init__(
        self,
        root: Root,
        units: Units,
        record: GuestRecord,
        watch: UnitWatch,
        changed: Callable[[GuestRecord], None],
    ) -> None:
        self.record = record
        self.watch = watch
        self.gone = tasks.Event()
        self._root = root
        self._units = units
        self._changed = changed
        self._stopping: tasks.Task[None] | None = None
        self._until = 0.0
        self._news = tasks.Event()

    async def stop(self, limit: float) -> None:
        """Press the power button; after `limit` seconds, or if it cannot be pressed, stop the unit.

        Returns when the guest is gone. Once begun it goes to its end, whoever waits; of several limits the
        first to run out counts, and the button is pressed for each. Timeout, Failed.
        """
        until = time.monotonic() + limit
        if self._stopping is None or self._stopping.done():
            self._stopping = self._begin(self._stop(), until)
        else:
            self._until = min(self._until, until)
            self._news.set()
            if self.record.stopping == POWER_BUTTON:
                await self._press()
        await self._stopping

    def resume(self) -> None:
        """Go on with the stop that an earlier nestd began, if its record tells of one."""
        if self.record.stopping:
            left = self.record.stop_deadline / 1e6 - time.time()
            until = time.monotonic() + min(max(left, 0.0), _LONGEST)
            self._stopping = self._begin(self._go_on(), until)

    async def kill(self) -> None:
        """End QEMU at once; returns when the guest is gone. Timeout, Failed."""
        await self._ask(self._units.kill(self.record.unit, signal.SIGKILL), "kill")
        await self._await_end()

    def end(self, known: Mapping[str, Any]) -> GuestRecord:
        """Its last record; `known` are its unit's properties after the end."""
        self.record = records.ended(self.record, known)
        return self.record

    async def bury(self) -> None:
        """Leave nothing of its unit; only then is it gone for those who wait."""
        try:
            await self._units.reset_failed(self.record.unit)
            await self.watch.close()
        except CallFailed as error:
            log.warning(f"What is left of the guest {self.record.name} could not be removed: {error}")
        finally:
            self.gone.set()
            self._news.set()

    async def close(self) -> None:
        """Stop following; the guest goes on. A stop under way is in its record, for the next nestd."""
        if self._stopping is not None:
            self._stopping.cancel()
            await tasks.wait({self._stopping})
        await self.watch.close()

    def _begin(self, work: Coroutine[Any, Any, None], until: float) -> tasks.Task[None]:
        self._until = until
        task = tasks.create_task(work)
        task.add_done_callback(_heard)
        return task

    async def _stop(self) -> None:
        self._tell(POWER_BUTTON, self._until - time.monotonic())
        if not (await self._press() and await self._powers_off()):
            await self._stop_unit()

    async def _go_on(self) -> None:
        """The button was pressed: to the guest, a second press may be another wish."""
        log.info(f"The stop of the guest {self.record.name}, begun before this nestd, is gone on with.")
        try:
            if not (self.record.stopping == POWER_BUTTON and await self._powers_off()):
                await self._stop_unit()
        except (Failed, Timeout) as error:
            log.warning(f"The guest {self.record.name} could not be stopped: {error}")  # no caller is told
            raise

    async def _stop_unit(self) -> None:
        self._tell(UNIT, STOP_LIMIT)
        try:
            await self._ask(self._units.stop(self.record.unit), "stop")
        except Failed:
            # Nobody stops it now.
            self._replace(self.record._replace(state=GuestState.RUNNING, stopping="", stop_deadline=0))
            raise
        await self._await_end()

    async def _powers_off(self) -> bool:
        """Wait for its end, or until its time is up; whether it has ended."""
        while not self.gone.is_set():
            left = self._until - time.monotonic()
            if left <= 0:
                return False
            self._tell(POWER_BUTTON, left)
            self._news.clear()
            await _within(self._news, left)
        return True

    async def _press(self) -> bool:
        """Press the power button; whether QEMU took it."""
        record = self.record
        least, most = _PRESS
        try:
            async with tasks.timeout(min(max(self._until - time.monotonic(), least), most)):
                path = self._root.path(places.qmp(record.name))
                async with QmpSocket(connect(path, record.owner)) as qmp:
                    await qmp.execute("system_powerdown")
        except (ConnectionResetError, BrokenPipeError):
            return True  # QEMU hung up: it is ending already
        except (OSError, NotTheGuest, QmpRefused, Malformed) as error:
            if not self.gone.is_set():
                why = "QEMU does not answer" if isinstance(error, TimeoutError) else error
                log.warning(f"The power button of {record.name} cannot be pressed: {why}")
            return False
        return True

    async def _ask(self, call: Coroutine[Any, Any, None], what: str) -> None:
        try:
            await call
        except CallFailed as error:
            raise Failed(f"systemd does not {what} {self.record.unit}: {error.text}") from error

    async def _await_end(self) -> None:
        if not await _within(self.gone, _END_LIMIT):
            raise Timeout(
                f"{self.record.unit} did not end within {_END_LIMIT:g} s: see `systemctl status` of it."
            )

    def _tell(self, stopping: str, left: float) -> None:
        told = records.stopping(self.record, stopping, left)
        late = abs(told.stop_deadline - self.record.stop_deadline)
        if stopping == self.record.stopping and late < 100_000:
            return  # the same as before, but for the time that it took to get here
        self._replace(told)

    def _replace(self, record: GuestRecord) -> None:
        if not self.record.over:
            self.record = record
            try:
                records.save(self._root, record)
            except OSError as error:
                log.warning(f"The next nestd will not know that {record.name} is {record.state}: {error}")
            self._changed(record)


async def _within(event: tasks.Event, limit: float) -> bool:
    try:
        async with tasks.timeout(limit):
            await event.wait()
    except TimeoutError:
        return False
    return True


def _heard(stopping: tasks.Task[None]) -> None:
    """A failure is for those who wait, and they may all have left."""
    if not stopping.cancelled():
        stopping.exception()
