# SPDX-License-Identifier: LGPL-2.1-or-later
"""What QEMU said last, looked up in the journal for one guest after the other.

However many end at once, one journalctl runs; a journal that hangs keeps nobody waiting but these words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from nestd import tasks
from nestd.guestmodel import GuestRecord
from nestd.host import words
from nestd.host.commands import Commands

LINES = 20


class _Question(NamedTuple):
    record: GuestRecord
    known: dict[str, Any]


class LastWords:
    """`wanted` says whether a guest's words are still asked for, `learned` is told them."""

    def __init__(
        self,
        commands: Commands,
        wanted: Callable[[GuestRecord], bool],
        learned: Callable[[GuestRecord, tuple[str, ...]], None],
    ) -> None:
        self._commands = commands
        self._wanted = wanted
        self._learned = learned
        self._questions: list[_Question] = []
        self._task: tasks.Task[None] | None = None

    def ask(self, record: GuestRecord, known: dict[str, Any]) -> None:
        """Look up what the guest's QEMU said last; `known` are its unit's properties."""
        self._questions.append(_Question(record, known))
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
                for record, known in asked:
                    if self._wanted(record):
                        said = await words.said(self._commands, known)
                        self._learned(record, tuple(said.splitlines()[-LINES:]))
        finally:
            self._task = None
