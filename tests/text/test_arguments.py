# SPDX-License-Identifier: LGPL-2.1-or-later
"""Words put on a command line, and taken off it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestd.text import cmdline
from nestd.text.arguments import Edit, edited, has

ON, OFF = "kvm_amd.nested=1", "kvm_amd.nested=0"


@pytest.mark.parametrize(
    ("line", "edit", "wanted"),
    [
        ("", Edit((ON,)), ON),
        ("\n", Edit((ON,)), f"{ON}\n"),
        ("root=/dev/vda1 ro  quiet \n", Edit((ON,)), f"root=/dev/vda1 ro  quiet {ON} \n"),
        (f"a {ON} b", Edit((ON,)), f"a {ON} b"),
        ("a kvm-amd.nested=1 b", Edit((ON,)), "a kvm-amd.nested=1 b"),
        (f"a  {OFF}  b", Edit((), (OFF,)), "a   b"),
        (f"{OFF} b", Edit((), (OFF,)), "b"),
        (OFF, Edit((), (OFF,)), ""),
        (f"{OFF} {OFF}", Edit((), (OFF,)), ""),
        (f"a kvm-amd.nested=0 b {OFF}\n", Edit((ON,), (OFF,)), f"a b {ON}\n"),
        # no part of a word, and nothing between quotes
        (f"{OFF}0 x{OFF}", Edit((), (OFF,)), f"{OFF}0 x{OFF}"),
        (f'x="a {OFF} b" {OFF}', Edit((), (OFF,)), f'x="a {OFF} b"'),
        # what is behind -- is init's
        ("a -- single", Edit((ON,)), f"a {ON} -- single"),
        ("-- single", Edit((ON,)), f"{ON} -- single"),
        (f"a -- {ON}", Edit((ON,)), f"a {ON} -- {ON}"),
        # the quote reaches to the end
        ('a="b c', Edit((ON,)), f'{ON} a="b c'),
    ],
)
def test_edited(line: str, edit: Edit, wanted: str) -> None:
    assert edited(line, edit) == wanted


LINES = st.lists(
    st.sampled_from([ON, OFF, "kvm-amd.nested=0", "root=1", "quiet", 'x="a b"', "--", " ", "\t", '"', "ä"]),
    max_size=8,
).map(" ".join)
EDITS = st.sampled_from([Edit((ON,)), Edit((ON,), (OFF,)), Edit((), (OFF, ON)), Edit((OFF,), (ON,)), Edit()])


@settings(deadline=None)
@given(LINES, EDITS)
def test_twice_is_as_once_and_the_rest_stays(line: str, edit: Edit) -> None:
    once = edited(line, edit)
    assert edited(once, edit) == once
    arguments = cmdline.parse(once.replace("kvm-amd", "kvm_amd"))
    assert all(cmdline.argument(word) in arguments for word in edit.add)
    for word in edit.remove:
        assert not has(once, word) or word in edit.add
    named = (*edit.add, *edit.remove)
    rest = [one for one in cmdline.words(line) if not any(has(one, word) for word in named)]
    assert [one for one in cmdline.words(once) if not any(has(one, word) for word in named)] == rest
    assert edit != Edit() or once == line
