# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestd.text import cmdline
from nestd.text.cmdline import Argument
from tests.support.tree import CAPTURES


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", []),
        (" \n\t", []),
        ("ro quiet\n", [("ro", None), ("quiet", None)]),
        ("root=UUID=1-2 x=", [("root", "UUID=1-2"), ("x", "")]),
        ('a="b c" d', [("a", "b c"), ("d", None)]),
        ('"a=b c" d', [("a", "b c"), ("d", None)]),
        ('"a b"', [("a b", None)]),
        ('a=b"c d"e', [("a", 'b"c d"e')]),
        ('a="b', [("a", "b")]),
        ('a="b c', [("a", "b c")]),
        ('a="', [("a", "")]),
        ('"', [("", None)]),
        ("=a", [("=a", None)]),
        ("=a=b", [("=a", "b")]),
        ("a==b", [("a", "=b")]),
        ("a -- b=1", [("a", None)]),
        ("a --b -- c", [("a", None), ("--b", None)]),
        ("--=1 a", [("--", "1"), ("a", None)]),
        ("x=\udcff y", [("x", "\udcff"), ("y", None)]),
    ],
)
def test_parse(text: str, wanted: list[tuple[str, str | None]]) -> None:
    assert cmdline.parse(text) == tuple(Argument(*one) for one in wanted)


def test_whole_line_reads_beyond_the_dashes() -> None:
    assert cmdline.parse("a -- b=1", whole=True) == (
        Argument("a", None),
        Argument("--", None),
        Argument("b", "1"),
    )


def test_last_one_wins_and_spelling_does_not_matter() -> None:
    arguments = cmdline.parse("kvm_amd.nested=1 kvm-amd.nested=0 kvm_amd.npt=1 xkvm_amd.nested=2")
    assert cmdline.parameter(arguments, "kvm_amd", "nested") == Argument("kvm-amd.nested", "0")
    assert cmdline.parameter(arguments, "kvm-amd", "npt") == Argument("kvm_amd.npt", "1")
    assert cmdline.parameter(arguments, "kvm_intel", "nested") is None
    assert cmdline.parameter(arguments, "kvm", "nested") is None


def test_a_parameter_without_value_is_there() -> None:
    arguments = cmdline.parse("kvm_intel.nested")
    assert cmdline.parameter(arguments, "kvm_intel", "nested") == Argument("kvm_intel.nested", None)


def test_captured_line() -> None:
    arguments = cmdline.parse((CAPTURES / "cmdline-pvm").read_text())
    assert Argument("nomodule", None) in arguments
    assert cmdline.parameter(arguments, "haltpoll", "guest_halt_poll_ns") == Argument(
        "haltpoll.guest_halt_poll_ns", "0"
    )


_NAME = st.text("abc_-.", min_size=1).filter(lambda name: name != "--")
_VALUE = st.text("abc =.-", max_size=8)


@given(st.lists(st.tuples(_NAME, _VALUE)))
def test_quoted_values_come_back(pairs: list[tuple[str, str]]) -> None:
    line = " ".join(f'{name}="{value}"' for name, value in pairs)
    assert cmdline.parse(line) == tuple(Argument(*pair) for pair in pairs)


@given(st.text())
def test_no_text_is_an_error(text: str) -> None:
    words = cmdline.words(text)
    assert len(cmdline.parse(text, whole=True)) == len(words)
    assert all(word and word in text for word in words)
