# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a plan is made of: a wish, and the steps between what is and what is wished.

Each step is data: it says what it does, and holds all that is needed to undo it. Doing one twice must be as
doing it once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from nestd.model import Driver, Nesting, Scope

# Seconds. A large initramfs on a slow disk takes minutes.
_LIMIT = 900.0


class Wish(NamedTuple):
    """What was asked for: nesting on (Enable), off (Disable), or None: what nestd set is forgotten (Revert).

    `replace`: what somebody else put on the kernel command line may be taken away. `loader` names the back
    end that writes the command line; empty: it is found out.
    """

    nested: Nesting | None
    scope: Scope
    replace: bool = False
    loader: str = ""

    @property
    def words(self) -> str:
        """What is being done, as a clause."""
        if self.nested is None:
            return "taking back what was set for the next boots"
        return f"turning nesting {self.nested}, {self.scope}"


class WriteFile(NamedTuple):
    """Make `text` the whole of a small text file; None: no such file. `before` is what it was until now."""

    path: str
    text: str | None
    before: str | None

    def __str__(self) -> str:
        if self.text is None:
            return f"remove {self.path}"
        last = self.text.strip().rpartition("\n")[2]
        return f"write {self.path}" + (f": {last}" if self.path.startswith("/etc/") and last else "")


class Run(NamedTuple):
    """Run a tool to its end, outside nestd's sandbox, within `limit` seconds.

    `keeps` are the files that it makes anew: each is copied before, and put back byte for byte when the step
    is undone. `undo` is the command that takes it back, where there is such a command. `words` say what is
    done where `argv` would not.
    """

    argv: tuple[str, ...]
    keeps: tuple[str, ...] = ()
    undo: tuple[str, ...] = ()
    limit: float = _LIMIT
    words: str = ""

    def __str__(self) -> str:
        return self.words or f"run {' '.join(self.argv)}"


class Unload(NamedTuple):
    """Unload the driver alone. `before` is the value that its switch had, `parameters` are the others'.

    `before` stands first so that no Unload equals a Load: named tuples are compared by their values.
    """

    before: Nesting
    driver: Driver
    parameters: Mapping[str, str]

    def __str__(self) -> str:
        return f"unload {self.driver.name}"


class Load(NamedTuple):
    """Load the driver with its switch set, and with all in `keep` as it says: its parameters until now."""

    driver: Driver
    nested: Nesting
    keep: Mapping[str, str]

    def __str__(self) -> str:
        return f"load {self.driver.name} with {self.driver.switch}={argument(self.driver, self.nested)}"


Step = WriteFile | Run | Unload | Load


class Plan(NamedTuple):
    """The steps in their order: those for the boot first. No steps: it is so already."""

    wish: Wish
    steps: tuple[Step, ...]


def argument(driver: Driver, nested: Nesting) -> str:
    """The value that the switch is given."""
    return driver.on if nested is Nesting.ON else driver.off
