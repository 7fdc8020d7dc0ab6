# SPDX-License-Identifier: LGPL-2.1-or-later
"""The file of a staged deployment, from one that ostree 2022.7 wrote (tests/support/deployed.py, stage)."""

from __future__ import annotations

import random

import pytest

from nestd.errors import Malformed
from nestd.text import staged
from tests.support import fakestaged
from tests.support.tree import CAPTURES

DATA = (CAPTURES / "ostree-staged-deployment").read_bytes()


def test_a_real_one() -> None:
    found = staged.parse(DATA)
    assert found.folder.startswith("/ostree/deploy/debian/deploy/")
    assert found.folder.endswith(".1")
    assert found.words[-3:] == ("root=LABEL=x", 'dyndbg="file a +p"', "kvm_amd.nested=1")
    assert not found.locked
    assert found.extra == {}


@pytest.mark.parametrize("count", [0, 1, 30, 300, 9000])
def test_of_any_size(count: int) -> None:
    """Offsets of one, two and four bytes."""
    words = [f"word{number}=x" for number in range(count)]
    target = fakestaged.dictionary({"name": (b"n\0", "s"), "osname": (b"o\0", "s")})
    extra = fakestaged.container([fakestaged.entry("x-options-source-tuned", b"a b\0", 1)], 1)
    data = fakestaged.dictionary(
        {
            "target": (target, "a{sv}"),
            "kargs": (fakestaged.strings([*words, "ostree=/ostree/boot.1/o/c/0"]), "as"),
            "bootconfig-extra": (extra, "a{ss}"),
            "locked": (b"\1", "b"),
        }
    )
    expected = staged.Staged(
        "/ostree/deploy/o/deploy/n", tuple(words), True, {"x-options-source-tuned": "a b"}
    )
    assert staged.parse(data) == expected


@pytest.mark.parametrize("name", [b"", b"..", b".", b"a/../../b", b"a\0b"])
@pytest.mark.parametrize("which", ["name", "osname"])
def test_what_is_no_name_of_a_folder(which: str, name: bytes) -> None:
    names = {"name": (b"n\0", "s"), "osname": (b"o\0", "s")} | {which: (name + b"\0", "s")}
    data = fakestaged.dictionary({"target": (fakestaged.dictionary(names), "a{sv}")})
    with pytest.raises(Malformed, match="no name of a folder"):
        staged.parse(data)


def test_nothing_else_than_malformed() -> None:
    chance = random.Random(5)
    refused = 0
    for number in range(4000):
        data = bytearray(DATA[:number] if number < len(DATA) else DATA)
        for _ in range(chance.randint(1, 4) if number >= len(DATA) else 0):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            staged.parse(bytes(data))
        except Malformed:
            refused += 1
    assert refused > len(DATA) // 2
