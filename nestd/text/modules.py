# SPDX-License-Identifier: LGPL-2.1-or-later
"""modules.dep(5) and modules.builtin: which modules there are, and what each needs."""

from __future__ import annotations

import re


def normalize(name: str) -> str:
    """A module's name as the kernel spells it: `-` and `_` are the same."""
    return name.replace("-", "_")


def _line(module: str) -> re.Pattern[str]:
    name = "[-_]".join(map(re.escape, normalize(module).split("_")))
    return re.compile(rf"^(?:[^:\n]*/)?{name}\.ko(?:\.[a-z0-9]+)?(?::(.*))?$", re.MULTILINE)


def has(text: str, module: str) -> bool:
    """Whether modules.dep or modules.builtin lists `module`, compressed or not."""
    return _line(module).search(text) is not None


def depends_on(text: str, module: str) -> tuple[str, ...]:
    """The modules that `module` needs, in the order of modules.dep, by the kernel's spelling.

    Empty where it needs none, and where modules.dep does not list it.
    """
    match = _line(module).search(text)
    paths = (match[1] or "").split() if match else []
    return tuple(normalize(path.rpartition("/")[2].partition(".ko")[0]) for path in paths)
