# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a guest has said to an earlier terminal, shown again on this one: its text, not its questions.

A terminal answers what it is asked (where the cursor is, how large it is) by typing the answer. To a guest
that asked long ago, and somebody else, it would be keys that nobody has pressed. Source: ECMA-48, xterm's
ctlseqs.
"""

from __future__ import annotations

import re

_ASKING = re.compile(
    rb"\x05"  # ENQ
    rb"|\x1bZ"  # DECID
    rb"|\x1b\[[0-?]*[ -/]*[cntx]"  # DA, DSR (the cursor's place), window reports, DECREQTPARM
    rb"|\x1b\[[0-?]*\$p"  # DECRQM
    rb"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\|$)"  # OSC: colours, the clipboard, the title
    rb"|\x1b[PX^_][^\x1b]*(?:\x1b\\|$)"  # DCS, SOS, PM, APC
)


def quiet(said: bytes) -> bytes:
    """The same without what a terminal answers, or keeps beyond its screen."""
    return _ASKING.sub(b"", said)
