# SPDX-License-Identifier: LGPL-2.1-or-later
"""What GRUB will boot when nobody touches the menu: the default entry of a grub.cfg, and its arguments.

Where the answer hangs on what only GRUB can judge there is none: Untold. Sources: grub-core/normal/menu.c
(get_entry_number, menuentry_eq, grub_menu_execute_entry), grub-core/lib/cmdline.c; blscfg.c of the
distributions that have it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from nestd.text import bls
from nestd.text.grubscript import Command, Statement, SyntaxProblem, parse
from nestd.text.grubshell import Shell, Untold

_LINUX = frozenset({"linux", "linux16", "linuxefi"})
_INITRD = frozenset({"initrd", "initrd16", "initrdefi"})
_OTHER_KERNELS = frozenset({"multiboot", "multiboot2", "chainloader", "configfile", "xen_hypervisor"})
_WITH_VALUE = frozenset({"class", "users", "hotkey", "id", "source"})
_DEEPEST = 8


class Choice(NamedTuple):
    """What is booted. The paths are as GRUB sees them, on the partition that they are on.

    `file` and `line` are where the arguments are written, `title` is the menu's.
    """

    title: str
    kernel: str
    initrd: str
    command_line: str
    file: str
    line: int


class _Entry(NamedTuple):
    title: str
    id: str
    sure: bool
    submenu: bool
    file: str
    statements: tuple[Statement, ...]
    listed: bls.Entry | None


def choose(
    text: str,
    *,
    file: str,
    beside: Mapping[str, str],
    variables: Mapping[str, str],
    entries: Sequence[bls.Entry],
) -> Choice:
    """What the grub.cfg `text` at `file` boots.

    `beside` are the files of its folder that are there (of grubshell.BESIDE), by name; `variables` what is
    known of GRUB's own (grub_platform); `entries` the BLS entries that `blscfg` would find. Raises Untold.
    """
    script = _Script(file, beside, variables, entries)
    try:
        script.run(parse(text))
        return script.chosen()
    except SyntaxProblem as problem:
        raise Untold(f"{file} cannot be read as GRUB's script: {problem}") from None


class _Script(Shell):
    """A script that makes a menu."""

    def __init__(
        self, file: str, beside: Mapping[str, str], variables: Mapping[str, str], entries: Sequence[bls.Entry]
    ) -> None:
        super().__init__(file, beside, variables)
        self._entries = entries
        self._menu: list[_Entry] = []
        self._kernels: list[tuple[int, list[str], bool]] = []
        self._initrd: list[str] = []
        self._elsewhere = False

    def chosen(self) -> Choice:
        """The entry that is booted, through the submenus. Raises Untold and SyntaxProblem."""
        for _ in range(_DEEPEST):
            here, below = _first_step(self.told("default"))
            entry = self._entry(here)
            self._menu = []
            self.file = entry.file
            if entry.listed is not None:
                return self._listed(entry.listed)
            self.assign("default", below)
            self.assign("chosen", entry.title)
            self.run(entry.statements)
            if not entry.submenu:
                return self._loaded(entry)
        raise Untold(f"the submenus of {self.file} are nested too deeply")

    def act(self, words: list[str], sure: bool, command: Command) -> None:
        name = words[0]
        if name in {"menuentry", "submenu"}:
            self._menu.append(self._titled(words, sure, command))
        elif name == "blscfg":
            found = bls.ordered(self._entries, by_file=True)
            self._menu += [_Entry(one.title, one.id, self.sure, False, one.path, (), one) for one in found]
        elif name in _LINUX:
            # Of the words only the arguments must be sure: which of its loaders is used does not matter.
            _, told = self.expand(command.words[2:])
            self._kernels.append((command.line, words, told and self.sure))
        elif name in _INITRD:
            self._initrd = words[1:]
        elif name in _OTHER_KERNELS and self.sure:
            self._elsewhere = True

    def _titled(self, words: list[str], sure: bool, command: Command) -> _Entry:
        title = ident = ""
        rest = iter(words[1:])
        for word in rest:
            if word.startswith("--"):
                key, equals, value = word[2:].partition("=")
                if key in _WITH_VALUE and not equals:
                    value = next(rest, "")
                ident = value if key == "id" else ident
            elif not title:
                title = word
        body = command.block or ()
        return _Entry(title, ident, sure and self.sure, words[0] == "submenu", self.file, body, None)

    def _entry(self, wanted: str) -> _Entry:
        if not self._menu:
            raise Untold(f"{self.file} makes no menu that could be read")
        position = 0
        if wanted.isdecimal():
            position = int(wanted[:6])
        elif wanted:
            named = (at for at, entry in enumerate(self._menu) if wanted in {entry.title, entry.id})
            position = next(named, 0)
        if position >= len(self._menu):
            position = 0
        entry = self._menu[position]
        by_name = wanted in {entry.title, entry.id}
        if not (entry.sure if by_name else all(other.sure for other in self._menu[: position + 1])):
            raise Untold(f"whether {self.file} has the menu entry {entry.title!r} is for GRUB to judge")
        return entry

    def _loaded(self, entry: _Entry) -> Choice:
        if self._elsewhere or len(self._kernels) != 1:
            what = (
                "loads more than one kernel"
                if len(self._kernels) > 1
                else "does not itself boot a Linux kernel"
            )
            raise Untold(f"the menu entry {entry.title!r} of {self.file} {what}")
        line, words, sure = self._kernels[0]
        if not sure or len(words) < 2:
            raise Untold(f"what {self.file}:{line} boots is for GRUB to judge")
        initrd = self._initrd[-1] if self._initrd else ""
        return Choice(entry.title, words[1], initrd, _joined(words[2:]), self.file, line)

    def _listed(self, one: bls.Entry) -> Choice:
        """A BLS entry: its options are words of the script, with the script's variables."""
        words: list[str] = []
        for statement in parse(f"linux {one.options or self.told('default_kernelopts')}"):
            expanded, sure = self.expand(statement.words) if isinstance(statement, Command) else ([], False)
            if not sure:
                raise Untold(f"what {one.path}:{one.line} boots is for GRUB to judge")
            words += expanded[1:]
        return Choice(one.title or one.id, one.linux, one.initrd, _joined(words), one.path, one.line)


def _first_step(default: str) -> tuple[str, str]:
    """The first step of a path through the menus and the rest: `>` parts them, `>>` stands for a `>`."""
    here, _, below = default.replace(">>", "\0").partition(">")
    return here.replace("\0", ">"), below.replace("\0", ">>")


def _joined(words: Sequence[str]) -> str:
    """The arguments as GRUB hands them to the kernel: a word with a space is put in quotes."""
    return " ".join(f'"{word}"' if " " in word else word for word in words)
