# SPDX-License-Identifier: LGPL-2.1-or-later
"""The `install` lines of modprobe.d: commands that run instead of a module's loading (libkmod-module.c)."""

# No postponed annotations here: see nestd/model.py.

import re
from collections.abc import Sequence
from typing import NamedTuple

from nestd.text import modprobe, modules

# Compiled when an install line is there, which is seldom. What ends without having loaded anything (/dev/null
# cannot be run):
_NEVER = r"(?:\S*/)?(?:true|false|:|exit|null|nologin)(?:\s+[^;&|<>`$()]*)?"
_IGNORES_INSTALL = (
    r"(?:exec\s+)?(?:\S*/)?modprobe\s+(?:-[a-z-]+\s+)*?(?:--ignore-install|-i)\s+"
    r"(?:-[a-z-]+\s+)*(\S+)([^;&|<>]*)"
)


class Install(NamedTuple):
    """The command for one module, and where it stands. `never`: it does not load the module.

    `arguments` are those that a `modprobe --ignore-install` in it adds, which beat all configuration, and
    `weak` those in front of a $CMDLINE_OPTS, in whose place libkmod puts what is configured: that beats them.
    `judged`: it is one of these two. What any other does cannot be told from its text.
    """

    module: str
    source: str
    command: str
    never: bool
    judged: bool
    arguments: tuple[str, ...] = ()
    weak: tuple[str, ...] = ()


def found(
    directives: Sequence[tuple[str, modprobe.Directive]], wanted: Sequence[str], index: str
) -> tuple[Install, ...]:
    """The commands that loading the modules `wanted` would run.

    Of several for one module the first counts, in the order of the files. A module with soft dependencies
    that exist is loaded without its command; whether they do, `index` tells: modules.dep and modules.builtin.
    """
    commands = [(where, one) for where, one in directives if one.command == "install" and one.arguments]
    if not commands:
        return ()
    result = []
    for module in sorted(wanted):
        first = next((one for one in commands if modprobe.matches(one[1].module, module)), None)
        if first is not None and not _has_softdeps(directives, module, index):
            result.append(_judge(module, first[0], " ".join(first[1].arguments)))
    return tuple(result)


def _has_softdeps(directives: Sequence[tuple[str, modprobe.Directive]], module: str, index: str) -> bool:
    for _, one in directives:
        if one.command == "softdep" and one.arguments and modprobe.matches(one.module, module):
            named = [word for word in one.arguments if word not in {"pre:", "post:"}]
            return one.arguments[0] in {"pre:", "post:"} and any(modules.has(index, name) for name in named)
    return False


def _judge(module: str, source: str, command: str) -> Install:
    if re.fullmatch(_NEVER, command):
        return Install(module, source, command, True, True)
    match = re.match(_IGNORES_INSTALL, command)
    if match is not None and modules.normalize(match[1]) == module:
        weak, _, strong = match[2].rpartition("$CMDLINE_OPTS")
        given = (tuple(word for word in part.split() if not word.startswith("$")) for part in (strong, weak))
        return Install(module, source, command, False, True, *given)
    return Install(module, source, command, False, False)
