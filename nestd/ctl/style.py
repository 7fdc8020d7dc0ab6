# SPDX-License-Identifier: LGPL-2.1-or-later
"""Colours, or none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TextIO


class Style:
    """Paints text with ANSI colours (ECMA-48 SGR), or leaves it as it is."""

    def __init__(self, colours: bool) -> None:
        self._colours = colours

    def bold(self, text: str) -> str:
        return self._paint("1", text)

    def dim(self, text: str) -> str:
        return self._paint("2", text)

    def good(self, text: str) -> str:
        return self._paint("32", text)

    def warn(self, text: str) -> str:
        return self._paint("33", text)

    def bad(self, text: str) -> str:
        return self._paint("31", text)

    def plain(self, text: str) -> str:
        return text

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colours else text


PLAIN = Style(False)


def style_for(stream: TextIO | None, environment: Mapping[str, str]) -> Style:
    """Colours only on a terminal that has them, and never with NO_COLOR (https://no-color.org)."""
    return Style(
        stream is not None
        and stream.isatty()
        and not environment.get("NO_COLOR")
        and environment.get("TERM") not in (None, "", "dumb")
    )
