# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestd.text import parameter


@pytest.mark.parametrize("value", ["y", "Yes", "t", "True", "1", "10", "on", "ON", "oNx", None])
def test_yes(value: str | None) -> None:
    assert parameter.boolean(value) is True


@pytest.mark.parametrize("value", ["n", "No", "f", "False", "0", "01", "off", "oF"])
def test_no(value: str) -> None:
    assert parameter.boolean(value) is False


@pytest.mark.parametrize("value", ["", "2", "-1", "o", "ox", " 1", "enable"])
def test_no_bool(value: str) -> None:
    assert parameter.boolean(value) is None


@pytest.mark.parametrize(
    ("value", "number"),
    [
        *(
            ("0", 0),
            ("1", 1),
            ("-1", -1),
            ("+2", 2),
            ("0x1F", 31),
            ("010", 8),
            ("00", 0),
            ("1\n", 1),
            ("-0x1", -1),
        ),
        *(("2147483647", 2**31 - 1), ("2147483648", None), ("-2147483648", -(2**31)), ("-2147483649", None)),
        *((None, None), ("", None), ("Y", None), ("08", None), ("0x", None), ("1 ", None), ("1_0", None)),
        *(("٣", None), ("--1", None), ("1\n\n", None), ("9" * 5000, None)),
    ],
)
def test_int(value: str | None, number: int | None) -> None:
    assert parameter.integer(value) == number


@given(st.integers(-(2**31), 2**31 - 1))
def test_every_int_comes_back(number: int) -> None:
    assert parameter.integer(str(number)) == parameter.integer(hex(number)) == number
