# SPDX-License-Identifier: LGPL-2.1-or-later
"""What one value of a request may be: each check gives it back, or raises InvalidArgs with what would do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from nestd.errors import InvalidArgs

_MAX_PATH = 4095  # PATH_MAX, limits.h
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def path(path: str, what: str) -> str:
    """An absolute path."""
    if not path.startswith("/") or _CONTROL.search(path) or len(path.encode(errors="replace")) > _MAX_PATH:
        raise InvalidArgs(f"{what} must be an absolute path without control characters, not {shown(path)}.")
    return path


def line(text: str, what: str, most: int) -> str:
    """One line of at most `most` bytes."""
    if _CONTROL.search(text) or len(text.encode(errors="replace")) > most:
        raise InvalidArgs(f"{what} must be one line of at most {most} bytes.")
    return text


def within(value: int, what: str, least: int, most: int, unit: str = "") -> int:
    """A number from `least` to `most`."""
    if not least <= value <= most:
        raise InvalidArgs(f"{what} must be from {least} to {most}{unit}, not {value}.")
    return value


def one_of(value: str, what: str, words: Iterable[str]) -> str:
    """One of these words."""
    if value not in words:
        raise InvalidArgs(f"{what} must be one of {', '.join(words)}, not {shown(value)}.")
    return value


def known(options: Mapping[str, Any], table: Mapping[str, str], what: str) -> None:
    """Options that are in the table, and no others."""
    for option in options:
        if option not in table:
            raise InvalidArgs(f"{shown(option)} is no option of {what}: there are {', '.join(table)}.")


def shown(text: str) -> str:
    """Somebody else's words, short and harmless on a terminal."""
    return ascii(text if len(text) <= 60 else text[:60] + "...")
