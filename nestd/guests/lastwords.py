# SPDX-License-Identifier: LGPL-2.1-or-later
"""What QEMU said last, and how it ended if nobody saw: looked up in the journal, one guest after the other.

However many end at once, one journalctl runs; a journal that hangs keeps nobody waiting but these words.
"""

from __future__ import annotations

from collections.abc import Callable

from nestd import tasks
from nestd.guestmodel import GuestRecord
from nestd.guests import records
from nestd.host import unitend, words
from nestd.host.commands import Commands

LINES = 20


class LastWords:
    """`wanted` says whether a guest is still asked for, `learned` is told its record before and after."""

    def __init__(
        self,
        commands: Commands,
        wanted: Callable[[GuestRecord], bool],
        learned: Callable[[GuestRecord, GuestRecord], None],
    ) -> None:
        self._commands = commands
        self._wanted = wanted
        self._learned = learned
        self._questions: list[GuestRecord] = []
        self._task: tasks.Task[None] | None = None

    def ask(self, record: GuestRecord) -> None:
        """Look up what the guest's QEMU said last, and what its record does not say of its end."""
        self._questions.append(record)
        if self._task is None:
            self._task = tasks.create_task(self._answer())

    async def close(self) -> None:
        """Ask no more."""
        if self._task is not None:
            self._task.cancel()
            await tasks.wait({self._task})

    async def _answer(self) -> None:
        try:
            while self._questions:
                asked, self._questions = self._questions, []
                await words.sync(self._commands)
                for record in asked:
                    if self._wanted(record):
                        self._learned(record, await self._look(record))
        finally:
            self._task = None

    async def _look(self, record: GuestRecord) -> GuestRecord:
        said = await words.said(self._commands, record.invocation)
        told = record._replace(last_words=tuple(said.splitlines()[-LINES:]) or record.last_words)
        if not told.result and (known := await unitend.told(self._commands, record.invocation)):
            told = records.ended(told, known)
        return told
