# SPDX-License-Identifier: LGPL-2.1-or-later
"""The journal of the change under way, /var/lib/nestd/change.

It is written before each step and after it, and removed at the end. Whoever finds one knows what was
wished, how far it came, and all that is needed to go on or back (nestd/nesting/heal.py). What could
not be undone stays until a later change succeeds, or the state is found to be in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from nestd import errors
from nestd.host.root import Root
from nestd.model import Driver, Nesting, Scope
from nestd.nesting import drivers, steps
from nestd.nesting.store import CHANGE, LASTING, Store

_NAME = CHANGE.rpartition("/")[2]
BOOT_ID = "/proc/sys/kernel/random/boot_id"  # random(4)


class Phase(StrEnum):
    """What is being done. STUCK: undoing failed, and nobody is at work."""

    DOING = "doing"
    UNDOING = "undoing"
    STUCK = "stuck"


class Record(NamedTuple):
    """A change under way: of its steps so many were `begun` and so many `ended`.

    `boot` is the boot's id, `trouble` are clauses: what failed, then what could not be undone. `earlier` is
    what was stuck before this change.
    """

    boot: str
    todo: steps.Plan
    begun: int = 0
    ended: int = 0
    phase: Phase = Phase.DOING
    trouble: tuple[str, ...] = ()
    earlier: Record | None = None


class Ledger:
    """The record in memory, and the same on the disk. All that writes raises OSError but `close`."""

    def __init__(self, root: Root, release: str) -> None:
        self._root = root
        self._release = release
        self._store = Store(root, LASTING)
        self._on_disk: Phase | None = None
        self.record: Record | None = None
        # Why the record of a change that has ended is still there; "" if it is not.
        self.left = ""

    @property
    def boot(self) -> str:
        """The id of this boot."""
        return (self._root.read(BOOT_ID) or "").strip()

    @property
    def broken(self) -> bool:
        """Whether there is a record that was set aside, as nobody could understand it."""
        return self._root.exists(f"{CHANGE}.broken")

    def load(self) -> Record | None:
        """What is on the disk."""
        raw = self._store.load(_NAME)
        if raw is not None:
            try:
                self.record = _decoded(raw, self._release)
                self._on_disk = self.record.phase
            except errors.Malformed:
                self._store.set_aside(_NAME)
        return self.record

    def begin(self, todo: steps.Plan, first: int = 0) -> None:
        """A change begins, `first` of its steps being done already; nothing is written yet.

        One that is taken up again in the same boot is the same record.
        """
        before = self.record
        if before is None or before[:2] != (self.boot, todo) or before.phase is not Phase.DOING:
            stuck = before if before and before.phase is Phase.STUCK else before and before.earlier
            self.record = Record(self.boot, todo, first, first, earlier=stuck)

    def rewrite(self, todo: tuple[steps.Step, ...]) -> None:
        """The same change with other steps, in this boot, all of them begun; nothing is written yet."""
        plan = self._now.todo._replace(steps=todo)
        self.record = self._now._replace(boot=self.boot, todo=plan, begun=len(todo), ended=0)

    def begun(self, step: int) -> None:
        """The step of that number begins."""
        self._write(begun=max(step + 1, self._now.begun))

    def ended(self, step: int) -> None:
        """It has ended."""
        self._write(ended=step + 1)

    def undoing(self, *trouble: str) -> None:
        """From here on it goes back."""
        self._write(phase=Phase.UNDOING, trouble=trouble)

    def stuck(self, *trouble: str) -> None:
        """It could not be undone."""
        # What was stuck before is part of what is stuck now.
        self._write(phase=Phase.STUCK, trouble=trouble, earlier=None)

    def close(self, *, done: bool) -> str:
        """It is over: done, which settles what was stuck before too, or undone.

        Returns "", or why the record could be neither removed nor kept from being taken for a change that
        is to go on: as a clause.
        """
        now, self.left = self._now, ""
        goes_on = self._on_disk in {None, Phase.DOING} and now.ended < len(now.todo.steps)
        try:
            if done or now.earlier is None:
                self.record = None
                self._store.forget(_NAME)
                self._on_disk = None
            else:
                self.record = now.earlier
                self._write()
        except OSError as failure:
            if self._root.exists(CHANGE):
                self.left = f"{CHANGE} could not be removed ({failure.strerror})"
        return self.left if goes_on else ""

    def settle(self) -> None:
        """What was stuck is settled, as all is now as somebody wished."""
        if self.record is not None and self.record.phase is Phase.STUCK:
            self.close(done=True)

    @property
    def _now(self) -> Record:
        if self.record is None:
            raise RuntimeError("no change is under way")
        return self.record

    def _write(self, **changed: Any) -> None:
        self.record = self._now._replace(**changed)
        self._store.save(_NAME, _encoded(self.record))
        self._on_disk = self.record.phase


def _encoded(record: Record) -> dict[str, Any]:
    return {
        "boot": record.boot,
        "nested": record.todo.wish.nested or "",
        "scope": record.todo.wish.scope,
        "replace": record.todo.wish.replace,
        "loader": record.todo.wish.loader,
        "steps": [_encoded_step(step) for step in record.todo.steps],
        "begun": record.begun,
        "ended": record.ended,
        "phase": record.phase,
        "trouble": record.trouble,
        "earlier": _encoded(record.earlier) if record.earlier else None,
    }


def _encoded_step(step: steps.Step) -> dict[str, Any]:
    match step:
        case steps.WriteFile(path, text, before):
            return {"step": "write-file", "path": path, "text": text, "before": before}
        case steps.Run():
            return {"step": "run", **step._asdict()}
        case steps.Unload(before, driver, parameters):
            return {"step": "unload", "driver": driver.name, "before": before, "keep": dict(parameters)}
        case steps.Load(driver, nested, keep):
            return {"step": "load", "driver": driver.name, "nested": nested, "keep": dict(keep)}


def _decoded(raw: Mapping[str, Any], release: str) -> Record:
    """Malformed: it is not what this version, for this kernel, would have written."""
    match raw:
        case {
            "boot": str(boot),
            "nested": "on" | "off" | "" as nested,
            "scope": "both" | "runtime" | "boot" as scope,
            "replace": bool(replace),
            "loader": str(loader),
            "steps": list(todo),
            "begun": int(begun),
            "ended": int(ended),
            "phase": "doing" | "undoing" | "stuck" as phase,
            "trouble": list(trouble),
            "earlier": None | dict() as earlier,
        } if 0 <= ended <= begun <= len(todo) and all(isinstance(words, str) for words in trouble):
            wish = steps.Wish(Nesting(nested) if nested else None, Scope(scope), replace, loader)
            plan = steps.Plan(wish, tuple(_decoded_step(step, release) for step in todo))
            before = None if earlier is None else _decoded(earlier, release)
            return Record(boot, plan, begun, ended, Phase(phase), tuple(trouble), before)
    raise errors.Malformed("a record of a change with other fields than this version's")


def _decoded_step(raw: object, release: str) -> steps.Step:
    match raw:
        case {
            "step": "write-file", "path": str(path),
            "text": None | str() as text, "before": None | str() as before,
        }:  # fmt: skip
            return steps.WriteFile(path, text, before)
        case {
            "step": "run", "argv": list(argv), "keeps": list(keeps), "undo": list(undo),
            "limit": int() | float() as limit, "words": str(words),
        } if argv and all(isinstance(word, str) for word in (*argv, *keeps, *undo)):  # fmt: skip
            return steps.Run(tuple(argv), tuple(keeps), tuple(undo), limit, words)
        case {"step": "unload", "driver": str(name), "before": "on" | "off" as nested, "keep": dict(keep)}:
            return steps.Unload(Nesting(nested), _driver(name, release), _texts(keep))
        case {"step": "load", "driver": str(name), "nested": "on" | "off" as nested, "keep": dict(keep)}:
            return steps.Load(_driver(name, release), Nesting(nested), _texts(keep))
    raise errors.Malformed("a step of a change that this version does not know")


def _driver(name: str, release: str) -> Driver:
    for driver in drivers.table(release):
        if driver.name == name:
            return driver
    raise errors.Malformed("a driver that is not in the table")


def _texts(raw: dict[Any, Any]) -> dict[str, str]:
    if all(isinstance(value, str) for value in raw.values()):
        return raw
    raise errors.Malformed("parameters that are no texts")
