# SPDX-License-Identifier: LGPL-2.1-or-later
"""The work that is under way for each caller, ended when its caller leaves the bus."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from nestd import errors, log
from nestd.bus.connection import Connection
from nestd.bus.matches import BUS, Signal
from nestd.tasks import Event, Task, create_task, sleep, wait

PER_CALLER = 16
TOTAL = 256
# Bytes of all messages under way, beyond what is short of each. Anybody can have a call wait for polkit, with
# half a MiB in it, which as text takes four times that in memory; the unit has 256 MiB (data/nestd.service).
HELD = 16 << 20
_SHORT = 4 << 10


class _Caller:
    __slots__ = ("left", "tasks", "watch")

    def __init__(self) -> None:
        self.left = False
        self.tasks: set[Task[None]] = set()
        self.watch: Task[None] | None = None


class Callers:
    """Keeps each task until it has ended. A caller is watched only while something is done for it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._callers: dict[str, _Caller] = {}
        self._watches: set[Task[None]] = set()
        self._count = 0
        self._held = 0

    def start(
        self, sender: str, work: Coroutine[Any, Any, None], ended: Callable[[bool], None], size: int = 0
    ) -> None:
        """Run `work` for a caller; `ended` is told, in every case, whether it was cancelled.

        `size`: bytes of the message, which is held until then.
        LimitsExceeded: too much is under way already; `work` is then closed, and `ended` not called.
        """
        caller = self._callers.get(sender)
        held = max(size - _SHORT, 0)
        if self.full(sender) or (held and self._held + held > HELD):
            work.close()
            raise errors.LimitsExceeded(
                f"Too many calls are under way ({PER_CALLER} for each caller, {TOTAL} and {HELD >> 20} MiB "
                "in all): wait for their replies first."
            )
        if caller is None:
            caller = self._callers[sender] = _Caller()
            caller.watch = create_task(self._watch(sender, caller))
            self._watches.add(caller.watch)
            caller.watch.add_done_callback(self._watches.discard)
        task = create_task(work)
        caller.tasks.add(task)
        self._count += 1
        self._held += held

        def done(task: Task[None]) -> None:
            caller.tasks.discard(task)
            self._count -= 1
            self._held -= held
            if not caller.tasks:
                del self._callers[sender]
                if caller.watch is not None:
                    caller.watch.cancel()
            ended(task.cancelled())

        task.add_done_callback(done)
        if caller.left:  # the call lay here when its sender went
            task.cancel()

    def full(self, sender: str) -> bool:
        """Whether nothing more is started for this caller until something of his, or of others, has ended."""
        caller = self._callers.get(sender)
        return self._count >= TOTAL or (caller is not None and len(caller.tasks) >= PER_CALLER)

    async def close(self) -> None:
        """Cancel everything, and wait until it has ended."""
        tasks = [task for caller in self._callers.values() for task in caller.tasks]
        for task in tasks:
            task.cancel()
        await wait(tasks)
        await sleep(0)  # the callbacks of those tasks cancel the watches
        await wait(self._watches)

    async def _watch(self, sender: str, caller: _Caller) -> None:
        def leave() -> None:
            # Once: what is being undone is not to be cut short.
            if not caller.left:
                caller.left = True
                for task in caller.tasks:
                    task.cancel()

        def changed(signal: Signal) -> None:
            if signal.body[2] == "":
                leave()

        rule = f"type='signal',sender='{BUS}',interface='{BUS}',member='NameOwnerChanged',arg0='{sender}'"
        try:
            unsubscribe = await self._connection.subscribe(rule, changed)
            try:
                # It may have left before the rule was there.
                [here] = await self._connection.bus("NameHasOwner", "s", [sender])
                if not here:
                    leave()
                await Event().wait()
            finally:
                await unsubscribe()
        except errors.CallFailed as error:
            log.warning(f"nobody will tell when {sender} leaves: {error}")
