# SPDX-License-Identifier: LGPL-2.1-or-later
"""The syntax of GRUB's scripts, as far as generated files go (grub-core/script/yylex.l, parser.y)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, Union

# Deeper than anything that is generated; a file made to exhaust the stack is refused.
_DEEPEST = 20
_TOKEN = re.compile(
    r"""(?P<skip>[ \t\r]+|\\\n|\#[^\n]*)
    |(?P<end>\n|;)
    |(?P<special>[{}|&<>])
    |(?P<word>(?:[^{}|&$;<>\s'"\\]|'[^']*'|"(?:\\.|[^"\\])*"|\\[^\n]|\$\{[^}\n]*\}|\$)+)""",
    re.VERBOSE | re.DOTALL,
)
_PART = re.compile(
    r"""'(?P<single>[^']*)'|"(?P<double>(?:\\.|[^"\\])*)"|\\(?P<escaped>.)
    |\$(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*|[0-9?*@\#])|\{(?P<braced>[^}]*)\})|(?P<plain>[^'"\\$]+|\$)""",
    re.VERBOSE | re.DOTALL,
)
_INSIDE = re.compile(
    r"""\\(?P<escaped>["$\\\n])|\$(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*|[0-9?*@\#])|\{(?P<braced>[^}]*)\})
    |(?P<plain>[^\\$]+|[\\$])""",
    re.VERBOSE | re.DOTALL,
)
_WORDS_THAT_END = frozenset({"then", "do", "done", "fi", "elif", "else", "}"})


class SyntaxProblem(ValueError):
    """The text is not what GRUB would accept, or uses what is not known here. Says the line."""


class Part(NamedTuple):
    """A piece of a word: a literal text, or the name of a variable. What is quoted is not split."""

    text: str
    variable: bool
    quoted: bool


Word = tuple[Part, ...]


class Command(NamedTuple):
    """A command with its words, and the statements between braces behind it, None if there are none."""

    line: int
    words: tuple[Word, ...]
    block: tuple[Statement, ...] | None


class If(NamedTuple):
    """The branches, each a condition (statements) and what it guards; the last may be (), for `else`."""

    line: int
    branches: tuple[tuple[tuple[Statement, ...], tuple[Statement, ...]], ...]


class Loop(NamedTuple):
    """`for`, `while`, `until`: how often the body runs is not followed."""

    line: int
    body: tuple[Statement, ...]


Statement = Union[Command, If, Loop]  # noqa: UP007 -- evaluated while the names are still to come


class _Token(NamedTuple):
    line: int
    text: str
    word: bool


def parse(text: str) -> tuple[Statement, ...]:
    """The statements of a script. Raises SyntaxProblem."""
    reader = _Reader(_tokens(text))
    statements = reader.statements()
    if reader.token is not None:
        raise SyntaxProblem(f"line {reader.token.line}: {reader.token.text!r} is out of place")
    return statements


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    at, line = 0, 1
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise SyntaxProblem(f"line {line}: a quote is not closed, or a character is not known")
        at = match.end()
        if match.lastgroup != "skip":
            found.append(_Token(line, match[0], match.lastgroup == "word"))
        line += match[0].count("\n")
    return found


def _word(text: str) -> Word:
    parts: list[Part] = []
    for match in _PART.finditer(text):
        kind = match.lastgroup or ""
        if kind == "double":
            inside = tuple(_part(inner, quoted=True) for inner in _INSIDE.finditer(match["double"]))
            parts += inside or (Part("", False, True),)
        else:
            parts.append(_part(match, quoted=kind in {"single", "escaped"}))
    return tuple(parts)


def _part(match: re.Match[str], *, quoted: bool) -> Part:
    kind = match.lastgroup or ""
    text = "" if kind == "escaped" and match[kind] == "\n" else match[kind]
    return Part(text, kind in {"name", "braced"}, quoted)


class _Reader:
    """Reads statements from tokens, each grammatical form by a method of its own."""

    def __init__(self, tokens: Sequence[_Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0

    @property
    def token(self) -> _Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def statements(self, ends: frozenset[str] = frozenset()) -> tuple[Statement, ...]:
        """Everything up to a word of `ends`, which is left to be read."""
        self._depth += 1
        if self._depth > _DEEPEST:
            raise SyntaxProblem(f"line {self._line}: nested too deeply")
        found: list[Statement] = []
        while (token := self.token) is not None and token.text not in ends:
            if token.text in {"\n", ";"}:
                self._at += 1
            elif token.text in _WORDS_THAT_END:
                raise SyntaxProblem(f"line {token.line}: {token.text!r} is out of place")
            else:
                found.append(self._statement(token))
        self._depth -= 1
        return tuple(found)

    @property
    def _line(self) -> int:
        return self._tokens[min(self._at, len(self._tokens) - 1)].line if self._tokens else 1

    def _expect(self, *texts: str) -> str:
        token = self.token
        if token is None or token.text not in texts:
            raise SyntaxProblem(f"line {self._line}: {' or '.join(texts)} is missing")
        self._at += 1
        return token.text

    def _statement(self, token: _Token) -> Statement:
        if token.text == "if":
            return self._if(token.line)
        if token.text in {"for", "while", "until"}:
            self._at += 1
            self.statements(frozenset({"do"}))
            self._expect("do")
            body = self.statements(frozenset({"done"}))
            self._expect("done")
            return Loop(token.line, body)
        return self._command(token)

    def _if(self, line: int) -> If:
        branches: list[tuple[tuple[Statement, ...], tuple[Statement, ...]]] = []
        word = self._expect("if")
        while word != "fi":
            condition: tuple[Statement, ...] = ()
            if word != "else":
                condition = self.statements(frozenset({"then"}))
                self._expect("then")
            branches.append((condition, self.statements(frozenset({"elif", "else", "fi"}))))
            word = self._expect("fi") if word == "else" else self._expect("elif", "else", "fi")
        return If(line, tuple(branches))

    def _command(self, first: _Token) -> Command:
        words: list[Word] = []
        block = None
        while (token := self.token) is not None and token.text not in {"\n", ";", "}"}:
            if token.text == "{":
                self._at += 1
                block = self.statements(frozenset({"}"}))
                self._expect("}")
                break
            if not token.word:
                raise SyntaxProblem(f"line {token.line}: {token.text!r} is not understood here")
            words.append(_word(token.text))
            self._at += 1
        if not words:
            raise SyntaxProblem(f"line {first.line}: a command is missing")
        return Command(first.line, tuple(words), block)
