# SPDX-License-Identifier: LGPL-2.1-or-later
"""Bodies: what is right comes through unchanged, everything else is Malformed and cheap."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestd.errors import Malformed
from nestd.wire import body
from nestd.wire.library import SignatureTree, Variant

_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
_BASIC: dict[str, st.SearchStrategy[Any]] = {
    "y": st.integers(0, 255),
    "b": st.booleans(),
    "n": st.integers(-(1 << 15), (1 << 15) - 1),
    "q": st.integers(0, (1 << 16) - 1),
    "i": st.integers(-(1 << 31), (1 << 31) - 1),
    "u": st.integers(0, (1 << 32) - 1),
    "x": st.integers(-(1 << 63), (1 << 63) - 1),
    "t": st.integers(0, (1 << 64) - 1),
    "d": st.floats(allow_nan=False),
    "s": _TEXT,
    "o": st.sampled_from(["/", "/org/nestd1", "/a/b_1"]),
    "g": st.sampled_from(["", "s", "a{sv}", "(ii)"]),
    "ay": st.binary(max_size=20),
}
_Typed = tuple[str, Any]


def _typed(signature: str) -> st.SearchStrategy[_Typed]:
    return _BASIC[signature].map(lambda value: (signature, value))


def _containers(inner: st.SearchStrategy[_Typed]) -> st.SearchStrategy[_Typed]:
    structs = st.lists(inner, min_size=1, max_size=3).map(
        lambda parts: ("(" + "".join(x[0] for x in parts) + ")", [x[1] for x in parts])
    )
    variants = inner.map(lambda typed: ("v", Variant(*typed)))
    lists = inner.filter(lambda typed: typed[0] != "y").map(lambda typed: ("a" + typed[0], [typed[1]] * 2))
    entries = st.tuples(_TEXT, inner).map(lambda x: ("a{s" + x[1][0] + "}", {x[0]: x[1][1]}))
    return structs | variants | lists | entries


_VALUES = st.lists(
    st.recursive(st.one_of([_typed(code) for code in _BASIC]), _containers, max_leaves=8), max_size=4
)


@settings(deadline=None)
@given(_VALUES)
def test_what_dbus_next_writes_is_read_unchanged(typed: list[_Typed]) -> None:
    signature = "".join(code for code, _ in typed)
    values = [value for _, value in typed]
    assert body.parse(signature, body.marshal(signature, values), True) == values


@settings(deadline=None)
@given(_VALUES)
def test_a_body_cut_off_at_any_byte_is_malformed(typed: list[_Typed]) -> None:
    signature = "".join(code for code, _ in typed)
    data = body.marshal(signature, [value for _, value in typed])
    for end in range(len(data)):
        with pytest.raises(Malformed):
            body.parse(signature, data[:end], True)


@settings(deadline=None)
@given(st.sampled_from(["a{sv}", "sa{sv}", "av", "(sv)as", "aa{sv}", "g", "bo"]), st.binary(), st.booleans())
def test_any_bytes_give_values_or_malformed(signature: str, data: bytes, little: bool) -> None:
    try:
        values = body.parse(signature, data, little)
    except Malformed:
        return
    assert len(values) == len(SignatureTree(signature).types)


@settings(deadline=None)
@given(st.text("aybnqiuxtdsogvh(){}", max_size=40))
def test_any_text_is_a_signature_or_malformed(text: str) -> None:
    try:
        types = body.signature_types(text)
    except Malformed:
        return
    assert "".join(each.signature for each in types) == text


@pytest.mark.parametrize(
    ("signature", "data", "values"),
    [
        ("u", "00000102", [0x0102]),
        ("s", "00000002 6869 00", ["hi"]),
        ("yx", "07 00000000000000 fffffffffffffffe", [7, -2]),
        ("as", "00000007 00000002 6869 00", [["hi"]]),
        ("a{sv}", "00000010 00000000 00000001 6b 00 01 75 00 000000 0000002a", [{"k": Variant("u", 42)}]),
        ("v", "01 73 00 00 00000001 78 00", [Variant("s", "x")]),
        ("d", "3ff0000000000000", [1.0]),
    ],
)
def test_big_endian(signature: str, data: str, values: list[Any]) -> None:
    assert body.parse(signature, bytes.fromhex(data), False) == values


@pytest.mark.parametrize(
    ("signature", "data"),
    [
        pytest.param("b", "02000000", id="a boolean of 2"),
        pytest.param("s", "02000000 6100 00", id="a NUL inside"),
        pytest.param("s", "02000000 6162 63", id="no NUL behind"),
        pytest.param("s", "01000000 ff 00", id="no UTF-8"),
        pytest.param("s", "ffffffff 61 00", id="a length beyond the end"),
        pytest.param("o", "03000000 2f612f 00", id="a path that ends in a slash"),
        pytest.param("o", "03000000 2f610a 00", id="a path with a newline"),
        pytest.param("yu", "01 00ff00 01000000", id="padding that is not NUL"),
        pytest.param("au", "05000000 01000000 02000000", id="an array that ends inside an element"),
        pytest.param("au", "ffffffff", id="an array longer than the message"),
        pytest.param("u", "01000000 00", id="bytes behind the end"),
        pytest.param("v", "02 7373 00 00 00", id="a variant of two types"),
        pytest.param("v", "00 00", id="a variant of no type"),
        pytest.param("v", "02 2829 00", id="an empty struct"),
        pytest.param("v", "04 7b73737d 00", id="a dictionary entry outside an array"),
        pytest.param("g", "01 61 00", id="a signature that is none"),
    ],
)
def test_what_breaks_a_rule_is_malformed(signature: str, data: str) -> None:
    with pytest.raises(Malformed):
        body.parse(signature, bytes.fromhex(data), True)


def test_variants_cannot_nest_without_end() -> None:
    with pytest.raises(Malformed, match="too deeply"):
        body.parse("v", b"\x01v\0" * 1000 + b"\x01y\0\0", True)


def test_signatures_cannot_nest_without_end() -> None:
    for signature in ("a" * 33 + "y", "(" * 33 + "y" + ")" * 33):
        with pytest.raises(Malformed, match="too deeply"):
            body.signature_types(signature)
    assert body.signature_types("a" * 32 + "y")


def test_the_number_of_values_is_bounded() -> None:
    data = body.marshal("au", [list(range(5000))])
    with pytest.raises(Malformed, match="too many values"):
        body.parse("au", data, True)
    assert body.parse("au", data, True, values=5001) == [list(range(5000))]


def test_signatures_in_variants_take_from_the_same_bound() -> None:
    # Empty arrays of a long struct: hardly any values, but much to parse.
    signature = "a(" + "y" * 200 + ")"
    data = body.marshal("av", [[Variant(signature, [])] * 100])
    with pytest.raises(Malformed, match="too many values"):
        body.parse("av", data, True)


def test_foreign_signatures_are_not_kept() -> None:
    """facts.md: "the signature cache is unbounded"."""
    known = len(SignatureTree._cache)
    for number in range(300):
        signature = f"({bin(number)[2:].replace('0', 'y').replace('1', 'u')})".encode()
        data = b"\x04\0\0\0" + bytes([len(signature) + 1]) + b"a" + signature + b"\0"
        padded = data + bytes(-len(data) % 4) + bytes(4)
        with pytest.raises(Malformed):
            body.parse("uv", padded + b"garbage", True)
    assert len(SignatureTree._cache) == known


@pytest.mark.parametrize(
    ("value", "sent"), [("a\0b", "a\ufffdb"), ("caf\udce9", "caf\ufffd"), ("\ud83d", "\ufffd"), ("é", "é")]
)
def test_text_that_no_string_can_hold_is_replaced(value: str, sent: str) -> None:
    data = body.marshal("sas", [value, (value,)])
    assert body.parse("sas", data, True) == [sent, [sent]]


def test_tuples_and_mappings_are_taken() -> None:
    data = body.marshal("a(us)a{ss}v", [((1, "a"),), {"k": "v"}, body.variant("a(us)", ((1, "a"),))])
    assert body.parse("a(us)a{ss}v", data, True) == [[[1, "a"]], {"k": "v"}, Variant("a(us)", [[1, "a"]])]


def test_values_that_are_not_what_the_signature_says() -> None:
    cases: list[tuple[str, list[Any]]] = [("u", ["x"]), ("u", [-1]), ("", ["x"]), ("ss", ["x"]), ("o", ["x"])]
    for signature, values in cases:
        with pytest.raises(ValueError):
            body.marshal(signature, values)
