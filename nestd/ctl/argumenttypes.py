# SPDX-License-Identifier: LGPL-2.1-or-later
"""What one word of the command line may be: each a `type` of argparse, which shows the error's text."""

from __future__ import annotations

import argparse

_CTRL = ("Ctrl-", "ctrl-", "CTRL-")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def size(text: str) -> int:
    """Bytes from `512M`, `2G` or a plain number; the suffixes K, M, G and T are powers of 1024."""
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "")
    if unit not in _UNITS or not (number.isascii() and number.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write bytes, or a number with K, M, G or T")
    return _within(int(number) * _UNITS[unit], 64, text)


def count(text: str) -> int:
    """A whole number from 1 that fits the bus type u."""
    return _within(whole(text), 32, text)


def seconds(text: str) -> int:
    """A whole number of seconds, 0 included, small enough for a day."""
    value = whole(text)
    if value > 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is more than a day")
    return value


def key(text: str) -> bytes:
    """A key that is pressed together with Ctrl, written `^A` or `Ctrl-A`."""
    letter = text.removeprefix("^") if text.startswith("^") else text[5:] if text[:5] in _CTRL else ""
    if len(letter) != 1 or not "@" <= letter.upper() <= "_":
        raise argparse.ArgumentTypeError(f"{text!r} is no such key: write ^ and a letter or one of @[\\]^_")
    return bytes([ord(letter.upper()) - 64])


def word(text: str) -> str:
    """Text that D-Bus can carry."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not UTF-8, and D-Bus carries nothing else") from None
    return text


def path(text: str) -> str:
    """A path, as it is written."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return word(text)


def disk(text: str) -> dict[str, str | bool]:
    """A disk from `path=…,format=…[,readonly][,snapshot]`; a comma in the path is written twice."""
    given: dict[str, str | bool] = {}
    for part in text.replace(",,", "\0").split(","):
        key, _, value = part.replace("\0", ",").partition("=")
        if key in ("readonly", "snapshot") and value in ("", "on", "off"):
            given[key] = value != "off"
        elif key == "path" and value:
            given[key] = word(value)
        elif key == "format" and value in ("raw", "qcow2"):
            given[key] = value
        else:
            raise argparse.ArgumentTypeError(
                f"{part!r} is not understood: write path=FILE,format=raw|qcow2[,readonly][,snapshot]"
            )
    if "path" not in given or "format" not in given:
        raise argparse.ArgumentTypeError("a disk needs path= and format= (raw or qcow2; it is never probed)")
    return given


def whole(text: str) -> int:
    """A whole number in decimal digits."""
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    return int(text)


def _within(value: int, bits: int, text: str) -> int:
    if not 0 < value < 1 << bits:
        raise argparse.ArgumentTypeError(f"{text!r} is out of range")
    return value
