# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a guest has said to an earlier terminal, shown again on this one: its text, not its questions.

A terminal answers what it is asked (where the cursor is, how large it is) by typing the answer. To a guest
that asked long ago, and somebody else, it would be keys that nobody has pressed. So of all control sequences
those are left that are known to change nothing but the screen. A control of C1 is ESC and a letter, or one
character, U+0080 to U+009F, or its byte alone, which is no UTF-8; within a sequence those of C0 are obeyed
without ending it. Source: ECMA-48, xterm's ctlseqs, https://vt100.net/emu/dec_ansi_parser.
"""

from __future__ import annotations

import re

# What may stand within a sequence: all but ESC, which begins another one, and CAN and SUB, which give it up.
_C0 = r"\x00-\x17\x19\x1c-\x1f\x7f"
_ST = r"(?:\x1b\\|[\x9c\udc9c])"
_STRING = r"[^\x18\x1a\x1b\x9c\udc9c]"


def _control(letters: str) -> str:
    """Any of these controls of C1, by their letters after ESC."""
    ones = "".join(chr(ord(letter) + 0x40) + chr(ord(letter) + 0xDC40) for letter in letters)
    return rf"(?:\x1b[{_C0}]*[{re.escape(letters)}]|[{ones}])"


_SEQUENCE = re.compile(
    rf"{_control('[')}(?P<csi>[ -?{_C0}]*[@-~]?)"
    rf"|{_control(']')}(?:(?!\x07){_STRING})*(?:\x07|{_ST})?"  # OSC: colours, clipboard, title
    rf"|{_control('PX^_')}{_STRING}*{_ST}?"  # DCS, SOS, PM, APC
    rf"|{_control('Z')}|\x05"  # DECID, ENQ
    rf"|\x1b[ -/{_C0}]*(?P<escape>[0-~]?)"
)
_IGNORED = re.compile(f"[{_C0}]+")
# The cursor moved, text and colours changed, scrolling, modes (?: DEC's), a soft reset, the cursor's shape.
_SHOWS = re.compile(r"[0-9;:]*[@A-MPSTXZ`abd-hlmrs]|u|\?[0-9;]*[JKhlrs]|!p|[0-9]* q")


def quiet(said: bytes) -> bytes:
    """The same without what a terminal answers, or keeps beyond its screen, and without half a sequence."""
    text = said.decode("utf-8", "surrogateescape")
    return _SEQUENCE.sub(_shown, text).encode("utf-8", "surrogateescape")


def _shown(found: re.Match[str]) -> str:
    csi, whole = found["csi"], found[0].replace("\x05", "")  # ENQ asks within a sequence, too
    if csi is None:
        return whole if found["escape"] else ""
    return whole if _SHOWS.fullmatch(_IGNORED.sub("", csi)) else ""
