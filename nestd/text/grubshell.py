# SPDX-License-Identifier: LGPL-2.1-or-later
"""GRUB's shell, run as far as it can be without GRUB: variables, conditions, functions.

A condition that only GRUB at boot could judge (a key, a font, another disk) is followed both ways, and the
variables that hang on it become doubtful. Sources: GRUB's manual, grub-core/commands/test.c.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nestd.text.grubscript import Command, If, Loop, Statement, Word, parse

PREFIX = "(prefix)"
# The files beside grub.cfg that it reads; whoever runs a script hands in those that are there.
BESIDE = ("grubenv", "custom.cfg", "user.cfg")
# What GRUB itself sets, and only it knows; grub_platform and grub_cpu may be given.
_ONLY_AT_BOOT = frozenset(
    {"root", "cmdpath", "grub_platform", "grub_cpu", "lockdown", "shim_lock", "secureboot", "?"}
)
_DEEPEST = 8
_MOST_STATEMENTS = 50_000


class Untold(ValueError):
    """It cannot be told what is booted; the text is a clause that says why."""


def environment(text: str) -> dict[str, str]:
    """The variables of a grubenv file (grub-editenv(1)); a `\\` before a character stands for it."""
    found: dict[str, str] = {}
    for row in text.split("\n"):
        name, equals, value = row.partition("=")
        if equals and not name.startswith("#"):
            found[name] = _unescaped(value)
    return found


def _unescaped(value: str) -> str:
    out: list[str] = []
    characters = iter(value)
    for character in characters:
        out.append(next(characters, "") if character == "\\" else character)
    return "".join(out)


class Shell:
    """A script being run. What it does besides setting variables, `act` is told."""

    def __init__(self, file: str, beside: Mapping[str, str], variables: Mapping[str, str]) -> None:
        self.file = file
        # Whether what runs now runs for certain.
        self.sure = True
        self._beside = beside
        self._variables = {"prefix": PREFIX, "config_directory": PREFIX, **variables}
        self._doubtful = set(_ONLY_AT_BOOT - set(variables))
        self._functions: dict[str, tuple[Statement, ...]] = {}
        self._depth = 0
        self._ran = 0

    def act(self, words: list[str], sure: bool, command: Command) -> None:
        """A command that is not the shell's own; `sure`: its words hang on nothing doubtful."""

    def told(self, name: str) -> str:
        """A variable, empty if it is not set. Raises Untold if it is doubtful."""
        if name in self._doubtful:
            raise Untold(f"{self.file} sets {name} by a condition that only GRUB can judge")
        return self._variables.get(name, "")

    def assign(self, name: str, value: str, sure: bool = True) -> None:
        """Set a variable; it becomes doubtful if the value is not sure, or the command may not run."""
        if sure and self.sure:
            self._variables[name] = value
            self._doubtful.discard(name)
        elif not sure or self._variables.get(name, "") != value:
            self._doubtful.add(name)

    def run(self, statements: Sequence[Statement]) -> None:
        """Run them in order. Raises Untold and SyntaxProblem."""
        for statement in statements:
            self._ran += 1
            if self._ran > _MOST_STATEMENTS:
                raise Untold(f"{self.file} does not come to an end")
            if isinstance(statement, If):
                self._if(statement)
            elif isinstance(statement, Loop):
                self._doubted(statement.body)
            else:
                self._command(statement)

    def expand(self, words: Sequence[Word]) -> tuple[list[str], bool]:
        """The words with their variables put in, and whether all of those are sure."""
        out: list[str] = []
        for word in words:
            pieces, kept = [""], False
            for part in word:
                if not part.variable:
                    pieces[-1] += part.text
                    kept = True
                elif part.quoted:
                    pieces[-1] += self._value(part.text)
                    kept = True
                else:
                    # Only what a variable brings in is split, and may vanish.
                    first, *others = self._value(part.text).split(" ")
                    pieces[-1] += first
                    pieces += others
            out += [piece for piece in pieces if piece or (kept and len(pieces) == 1)]
        used = {part.text for word in words for part in word if part.variable}
        return out, not used & self._doubtful

    def _value(self, name: str) -> str:
        # Every GRUB since 2.00 has all the features that are asked for.
        return "y" if name.startswith("feature_") else self._variables.get(name, "")

    def _doubted(self, statements: Sequence[Statement]) -> None:
        sure, self.sure = self.sure, False
        self.run(statements)
        self.sure = sure

    def _if(self, statement: If) -> None:
        certain = True
        for condition, body in statement.branches:
            verdict = self._verdict(condition)
            if verdict is False:
                continue
            if verdict and certain:
                self.run(body)
                return
            certain = False
            self._doubted(body)
            if verdict:
                return

    def _verdict(self, condition: Sequence[Statement]) -> bool | None:
        if not condition:
            return True  # else
        last = condition[-1]
        if len(condition) != 1 or not isinstance(last, Command):
            self._doubted(condition)
            return None
        words, sure = self.expand(last.words)
        if words in (["true"], ["false"]):
            return words == ["true"]
        if words[:1] == ["["] and words[-1] == "]":
            words.pop()
        elif words[:1] != ["test"]:
            return None
        return self._test(words[1:]) if sure else None

    def _test(self, words: list[str]) -> bool | None:
        for operator, decides in ("-o", True), ("-a", False):
            if operator in words[1:-1]:
                at = words.index(operator, 1)
                both = {self._test(words[:at]), self._test(words[at + 1 :])}
                return decides if decides in both else None if None in both else not decides
        return self._plain_test(words)

    def _plain_test(self, words: list[str]) -> bool | None:
        if words[:1] == ["!"]:
            inner = self._plain_test(words[1:])
            return None if inner is None else not inner
        verdict: bool | None = None
        match words:
            case []:
                verdict = False
            case ["-n", one] | [one]:
                verdict = bool(one)
            case ["-z", one]:
                verdict = not one
            case ["-s" | "-f" | "-e", path] if path.removeprefix(f"{PREFIX}/") in BESIDE:
                verdict = path.removeprefix(f"{PREFIX}/") in self._beside
            case [left, "=" | "==" | "!=" as how, right]:
                verdict = (left == right) == (how != "!=")
            case [_, _, _]:
                verdict = _compared(words)
        return verdict

    def _command(self, command: Command) -> None:
        words, sure = self.expand(command.words)
        if not words:
            return
        name, arguments = words[0], words[1:]
        if name == "function" and arguments and command.block is not None:
            self._functions[arguments[0]] = command.block
        elif name == "set" or ("=" in name and not arguments):
            for one in arguments[:1] if name == "set" else words:
                key, equals, value = one.partition("=")
                if equals:
                    self.assign(key, value, sure)
        elif name == "unset":
            for one in arguments:
                self.assign(one, "", sure)
        elif name == "load_env":
            self._load_environment(arguments)
        elif name in {"source", "."} and arguments:
            self._source(arguments[0])
        elif name in self._functions:
            self._call(name, arguments)
        else:
            self.act(words, sure, command)

    def _load_environment(self, arguments: Sequence[str]) -> None:
        rest = list(arguments)
        if rest[:1] in (["-f"], ["--file"]):
            if rest[1:2] != [f"{PREFIX}/grubenv"]:
                return
            rest = rest[2:]
        for name, value in environment(self._beside.get("grubenv", "")).items():
            if not rest or name in rest:
                self.assign(name, value)

    def _source(self, path: str) -> None:
        name = path.removeprefix(f"{PREFIX}/")
        text = self._beside.get(name) if path.startswith(f"{PREFIX}/") else None
        if text is None:
            if self.sure:
                raise Untold(f"{self.file} reads {path}, which cannot be found from here")
            return
        self._deeper()
        before, self.file = self.file, f"{self.file.rpartition('/')[0]}/{name}"
        self.run(parse(text))
        self.file = before
        self._depth -= 1

    def _call(self, name: str, arguments: Sequence[str]) -> None:
        self._deeper()
        for number in range(1, 10):
            self.assign(str(number), arguments[number - 1] if number <= len(arguments) else "")
        self.run(self._functions[name])
        self._depth -= 1

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise Untold(f"{self.file} calls or reads itself")


def _compared(words: list[str]) -> bool | None:
    if not all(word.isdecimal() and len(word) < 19 for word in (words[0], words[2])):
        return None
    left, right = int(words[0]), int(words[2])
    return {
        "-eq": left == right,
        "-ne": left != right,
        "-lt": left < right,
        "-le": left <= right,
        "-gt": left > right,
        "-ge": left >= right,
    }.get(words[1])
