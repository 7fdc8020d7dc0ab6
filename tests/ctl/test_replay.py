# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is shown of a console's past: all but what a terminal would answer."""

from __future__ import annotations

import pytest

from nestd.ctl.replay import quiet


@pytest.mark.parametrize(
    "text",
    [
        b"plain \xff\r\n\x08\x07",
        b"\x1b[31mred\x1b[0m\x1b[2J\x1b[10;1H\x1b[K",
        b"\x1b[?25l\x1b[?1049h\x1b(B\x1b7\x1b8\x1bM",
        b"\x1b[1;24r\x1b[4h\x1b[!p\x1b[5A\x1b[3X",
    ],
)
def test_what_is_only_shown_passes(text: bytes) -> None:
    assert quiet(text) == text


@pytest.mark.parametrize(
    "question",
    [
        b"\x1b[6n", b"\x1b[?6n", b"\x1b[5n", b"\x1b[c", b"\x1b[0c", b"\x1b[>0c", b"\x1b[=c", b"\x1bZ",
        b"\x05", b"\x1b[18t", b"\x1b[14t", b"\x1b[21t", b"\x1b[x", b"\x1b[?2026$p",
        b"\x1b]11;?\x07", b"\x1b]11;?\x1b\\", b"\x1b]52;c;aGVsbG8=\x07", b"\x1b]0;title\x07",
        b"\x1bP+q544e\x1b\\", b"\x1b_Gi=31\x1b\\", b"\x1b]10;?",
    ],
)  # fmt: skip
def test_what_a_terminal_answers_does_not(question: bytes) -> None:
    assert quiet(b"a" + question) == b"a"
    if question[-1:] != b"?":
        assert quiet(b"a" + question + b"b\n") == b"ab\n"
