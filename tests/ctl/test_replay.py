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
        b"\x1b[1;24r\x1b[4h\x1b[!p\x1b[5A\x1b[3X\x1b[2 q\x1b[?2J\x1b[38:5:1m\x1b[s\x1b[u\x1b[3g",
        "\u00fc\u20ac \u0085\u008d\u009b31mred".encode(),
        b"\xd0\x9b\xd0\x9d\xd0\x9a \xe2\x9b\x90 \xc3\x9b6n \xf0\x9f\x9b\x9d",
        b"\x1b[3\r1m",
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
        b"\x1b[>q", b"\x1b[?u", b"\x1b[5i", b"\x1b[1;1;1;1;2;2*y", b"\x1b[1$w", b"\x1b[?4m",
        b"\xc2\x9b6n", b"\xc2\x9b?6n", b"\xc2\x9bc", b"\xc2\x9a", b"\xc2\x9d11;?\x07",
        b"\xc2\x9d11;?\xc2\x9c", b"\xc2\x90+q544e\xc2\x9c", b"\x1b]0;title\xc2\x9c", b"\xc2\x9fx\x1b\\",
        b"\xc2\x98x\x1b\\", b"\xc2\x9ex\x1b\\", b"\x9b6n", b"\x9d11;?\x9c", b"\x90x\x1b\\", b"\x9a",
        b"\x1b\r[6n", b"\x1b[\n6\x05n", b"\xc2\x9b6\x00n",
    ],
)  # fmt: skip
def test_what_a_terminal_answers_does_not(question: bytes) -> None:
    assert quiet(b"a" + question) == b"a"
    if question[-1:] != b"?":
        assert quiet(b"a" + question + b"b\n") == b"ab\n"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (b"\x1b\x1b[6n[6n", b"[6n"),
        (b"\x1b[\x1b[6n6n", b"6n"),
        (b"\xc2\x9b\x1bZ6n", b"6n"),
        (b"\x1b[\x051m\x1b\x057\xc2\x9b\x05m", b"\x1b[1m\x1b7\xc2\x9bm"),
        (b"\x1b\x1bZ\x1b]0;t\x07[6n", b"[6n"),
        (b"\x1b[6\x18n", b"\x18n"),
        (b"\x1b]0;title\x1b[31mred", b"\x1b[31mred"),
    ],
)
def test_what_is_left_out_leaves_no_question_behind(said: bytes, shown: bytes) -> None:
    assert quiet(said) == shown


@pytest.mark.parametrize(
    "half", [b"\x1b", b"\x1b[", b"\x1b[6", b"\xc2\x9b6", b"\x1b(", b"\x1b]0;ti", b"\x1bP1"]
)
def test_half_a_sequence_is_not_finished_by_what_comes_next(half: bytes) -> None:
    assert quiet(b"a" + half) == b"a"


def test_a_guest_that_says_nothing_else_is_read_as_fast() -> None:
    for piece in (b"\x1b[\x00", b"\x1b]", b"\xc2\x9d", b"\x1b[" + b"\x00" * 10_000, b"\x1b[" + b"$" * 10_000):
        assert quiet(piece * (200_000 // len(piece))) == b""
