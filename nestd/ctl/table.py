# SPDX-License-Identifier: LGPL-2.1-or-later
"""What nestctl's output is made of: text made harmless, rows, columns. Pure.

Nothing from the bus reaches the terminal raw: each text goes through `visible`. A key that is not
there (an older nestd) reads as `unknown`, never as an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from .style import Style

Values = Mapping[str, object]

_LABEL = 16  # columns up to the colon
_WIDTH = 80


def visible(value: object) -> str:
    """The value as text in which whatever does not print is written as an escape (`\\x1b`, `\\u202e`)."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(value))


def lines(value: str) -> str:
    """A message that may have several lines: made visible, every further line indented."""
    return "\n    ".join(visible(line) for line in value.strip().split("\n"))


def width(text: str) -> int:
    """How many columns a terminal gives the text (Unicode's UAX 11; a combining mark has none)."""
    if text.isascii():
        return len(text)
    import unicodedata  # noqa: PLC0415 - hardly any text needs it

    marks = ("Mn", "Me")
    shown = [one for one in text if unicodedata.category(one) not in marks]
    return len(shown) + sum(unicodedata.east_asian_width(one) in ("W", "F") for one in shown)


def columns(table: Sequence[tuple[str, ...]], style: Style) -> str:
    """Columns as wide as they have to be, under the head that is the first row."""
    widths = [max(width(row[column]) for row in table) for column in range(len(table[0]))]
    out = [
        "  ".join(cell + " " * (room - width(cell)) for cell, room in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
    return "\n".join([style.bold(out[0]), *out[1:]]) + "\n"


def table(rows: Iterable[tuple[str, str]], style: Style) -> str:
    """Rows of label and value, the colons below each other; an empty label goes on with what is above."""
    return "".join(
        f"{style.bold(f'{label:>{_LABEL}}:')} {value}\n" if label else f"{'':{_LABEL + 1}} {value}\n"
        for label, value in rows
    )


def listed(label: str, value: object) -> list[tuple[str, str]]:
    """The rows of a list: its label stands before the first."""
    found = [visible(item) for item in several(value) if item]
    return [(label if number == 0 else "", item) for number, item in enumerate(found)]


def wrapped(label: str, before: str, words: Iterable[str]) -> list[tuple[str, str]]:
    """The rows of many words with `before` in front of them: no wider than a terminal, unless one word is."""
    rows = [before]
    for word in map(visible, words):
        if width(rows[-1]) + 1 + width(word) > _WIDTH - _LABEL - 2:
            rows.append(word)
        else:
            rows[-1] += f" {word}"
    return [(label if number == 0 else "", row) for number, row in enumerate(rows)]


def several(value: object) -> list[str]:
    """A list of texts; empty where it is none."""
    return [str(item) for item in value] if isinstance(value, list) else []


def text(values: Values, key: str, default: str = "unknown") -> str:
    """The value of a key, visible."""
    return visible(values.get(key, default))
