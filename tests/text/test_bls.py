# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestd.errors import Malformed
from nestd.text import bls, pe
from tests.support.images import unified


def test_entry() -> None:
    text = (
        "# c\ntitle  A b\nversion 6.1\nmachine-id m\nsort-key debian\nlinux /k\ninitrd /i\ninitrd /j\n"
        "\toptions a\noptions\tb c\nx y\n"
    )
    assert bls.entry("/efi/loader/entries/m-6.1.conf", text) == bls.Entry(
        id="m-6.1",
        path="/efi/loader/entries/m-6.1.conf",
        line=9,
        title="A b",
        linux="/k",
        initrd="/j",
        options="a b c",
        version="6.1",
        sort_key="debian",
        machine_id="m",
    )


@pytest.mark.parametrize(
    ("name", "ident", "bad"),
    [
        ("a", "a", False),
        ("a+3", "a", False),
        ("a+0-3", "a", True),
        ("a+2-1", "a", False),
        ("a+b", "a+b", False),
    ],
)
def test_boot_counting(name: str, ident: str, bad: bool) -> None:
    one = bls.entry(f"/boot/loader/entries/{name}.conf", "linux /k")
    assert (one.id, one.bad) == (ident, bad)


@given(st.text("options lx\n\t#=", max_size=60))
def test_no_entry_is_an_error(text: str) -> None:
    assert bls.entry("/boot/loader/entries/x.conf", text).id == "x"
    assert isinstance(bls.loader_conf(text), dict)


# Each list from the oldest to the newest; systemd-analyze compare-versions (252) agrees on every pair.
@pytest.mark.parametrize(
    "versions",
    [
        ["6.1.0-9", "6.1.0-10", "6.1.0-42", "6.10.0-1", "6.12~rc1", "6.12"],
        ["0-rescue", "6.9.5-200.fc40", "6.10.7-200.fc40"],
        ["1~a", "1", "1-1", "1^1", "1.1", "1a", "11"],
        ["~1", "", "1"],
        ["a", "b", "ba", "1"],
    ],
)
def test_versions(versions: list[str]) -> None:
    for number, older in enumerate(versions):
        assert bls.compare(older, older) == 0
        for newer in versions[number + 1 :]:
            assert (bls.compare(older, newer), bls.compare(newer, older)) == (-1, 1), (older, newer)


def test_order() -> None:
    def one(ident: str, **more: str) -> bls.Entry:
        text = "".join(f"{key.replace('_', '-')} {value}\n" for key, value in more.items())
        return bls.entry(f"/boot/loader/entries/{ident}.conf", text)

    entries = [
        one("z", sort_key="arch", version="6.1"),
        one("y", sort_key="arch", version="6.9"),
        one("x+0", sort_key="aaa"),
        one("old-6.1"),
        one("old-6.10"),
        one("w", sort_key="arch", machine_id="1", version="7"),
    ]
    random.Random(1).shuffle(entries)
    assert [entry.id for entry in bls.ordered(entries)] == ["y", "z", "w", "old-6.10", "old-6.1", "x"]
    assert [entry.id for entry in bls.ordered(entries, by_file=True)][:2] == ["z", "y"]


def test_loader_conf() -> None:
    assert bls.loader_conf("timeout 3\n# default x\ndefault\ta*\n default b* \n")["default"] == ("b*", 4)


def test_sections() -> None:
    image = unified({".osrel": b"ID=x\n", ".cmdline": b"a b\0", ".linux": b"k" * 100})
    sections = pe.sections(image[: pe.HEADERS])
    assert set(sections) == {".osrel", ".cmdline", ".linux"}
    at = sections[".cmdline"]
    assert image[at.offset : at.offset + at.size] == b"a b\0"


@pytest.mark.parametrize(
    "head", [b"", b"MZ", b"ELF" + bytes(200), b"MZ" + bytes(58) + struct.pack("<I", 2**31)]
)
def test_what_is_no_pe(head: bytes) -> None:
    with pytest.raises(Malformed):
        pe.sections(head)


@given(st.integers(0, 400), st.binary(max_size=8))
def test_a_damaged_pe_is_read_or_malformed(at: int, damage: bytes) -> None:
    image = bytearray(unified({".cmdline": b"a", ".linux": b"k"})[:512])
    image[at : at + len(damage)] = damage
    try:
        assert all(section.size >= 0 for section in pe.sections(bytes(image)).values())
    except Malformed as malformed:
        assert "PE" in str(malformed)
