# SPDX-License-Identifier: LGPL-2.1-or-later
"""The parser against its table; tests/nesting/test_real_modprobe.py holds it against the real one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestd.text import modprobe
from nestd.text.cmdline import Argument
from nestd.text.modprobe import Directive


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", []),
        ("\n \n# options a b=1\n", []),
        ("options kvm-amd nested=1 npt=0\n", [(1, "options", "kvm_amd", ("nested=1", "npt=0"))]),
        ("options kvm_amd nested=1", [(1, "options", "kvm_amd", ("nested=1",))]),
        ("\toptions\t kvm_amd \tnested=1 ", [(1, "options", "kvm_amd", ("nested=1",))]),
        (
            "\n# c\noptions kvm_amd \\\n nested=1\nblacklist a-b\n",
            [(3, "options", "kvm_amd", ("nested=1",)), (5, "blacklist", "a_b", ())],
        ),
        ("# c \\\noptions a b=1\noptions c d=1\n", [(3, "options", "c", ("d=1",))]),
        ("opt\\\nions a b=1\n", [(1, "options", "a", ("b=1",))]),
        ("options a b=\\1\n", [(1, "options", "a", ("b=1",))]),
        ("options a b=1\\", [(1, "options", "a", ("b=1",))]),
        ("options a b=1\r\n", [(1, "options", "a", ("b=1",))]),
        ('options a b="x y" c=1\n', [(1, "options", "a", ('b="x y"', "c=1"))]),
        ("alias my-* kvm-amd\n", [(1, "alias", "my_*", ("kvm_amd",))]),
        ("install a-b /bin/x  a-b; y\n", [(1, "install", "a_b", ("/bin/x", "a-b;", "y"))]),
        ("softdep a pre: b post: c\n", [(1, "softdep", "a", ("pre:", "b", "post:", "c"))]),
        ("options\noptions a\n", [(1, "options", "", ()), (2, "options", "a", ())]),
        ("  # not a comment\n", [(1, "#", "not", ("a", "comment"))]),
        ("nonsense here\n", [(1, "nonsense", "here", ())]),
        ("options a b=1\0 c=1\n", [(1, "options", "a", ("b=1",))]),
        ("install kvm-[a-z]-x /bin/true\n", [(1, "install", "kvm_[a-z]_x", ("/bin/true",))]),
        ("install a]-b x\ninstall a[ x\n", [(1, "install", "", ("x",)), (2, "install", "", ("x",))]),
        ("options a b=\udcff\n", [(1, "options", "a", ("b=\udcff",))]),
    ],
)
def test_parse(text: str, wanted: list[tuple[int, str, str, tuple[str, ...]]]) -> None:
    assert modprobe.parse(text) == tuple(Directive(*one) for one in wanted)


@given(st.text('optins a=1\\\n#\t\0\r"\udcff'))
def test_no_text_is_an_error(text: str) -> None:
    numbers = [directive.line for directive in modprobe.parse(text)]
    assert numbers == sorted(numbers)
    assert all(1 <= number <= text.count("\n") + 1 for number in numbers)


def test_setting() -> None:
    (options,) = modprobe.parse('options kvm_intel nested=1 ept=0 nested="N" vpid')
    assert modprobe.setting(options, "nested") == Argument("nested", "N")
    assert modprobe.setting(options, "vpid") == Argument("vpid", None)
    assert modprobe.setting(options, "avic") is None
    (install,) = modprobe.parse("install kvm_intel nested=1")
    assert modprobe.setting(install, "nested") is None


def test_search_hides_by_name_and_sorts_by_name() -> None:
    names = {
        "/lib/modprobe.d": ("kvm.conf", "a.conf"),
        "/etc/modprobe.d": ("zz-nestd.conf", "kvm.conf", ".x.conf", "kvm.conf.bak", "Z.conf"),
        "/run/modprobe.d": ("a.conf",),
    }
    assert modprobe.search(names) == (
        "/etc/modprobe.d/Z.conf",
        "/run/modprobe.d/a.conf",
        "/etc/modprobe.d/kvm.conf",
        "/etc/modprobe.d/zz-nestd.conf",
    )


def test_search_sorts_odd_names_by_their_bytes() -> None:
    # As text, U+10000 is above everything; its first byte, F0, is below FF.
    names = ("\udcff.conf", "\U00010000.conf", "\ue000.conf")
    found = modprobe.search({"/etc/modprobe.d": names})
    assert [path.rpartition("/")[2] for path in found] == ["\ue000.conf", "\U00010000.conf", "\udcff.conf"]


@pytest.mark.parametrize(
    ("pattern", "module", "wanted"),
    [
        ("kvm_amd", "kvm_amd", True),
        ("kvm", "kvm_amd", False),
        ("kvm*", "kvm_amd", True),
        ("kvm_[^i]*", "kvm_amd", True),
        ("kvm_[!a]*", "kvm_amd", False),
        ("?vm_amd", "kvm_amd", True),
    ],
)
def test_patterns_are_globs(pattern: str, module: str, wanted: bool) -> None:
    assert modprobe.matches(pattern, module) is wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("ro quiet root=a.b", []),
        ("kvm-amd.nested=1 -- kvm_amd.nested=0", ["options kvm_amd nested=1", "options kvm_amd nested=0"]),
        ('"kvm_amd.x=a b"', ['options kvm_amd x="a b"']),
        ('kvm_amd.nested="1"', ['options kvm_amd nested="1"']),
        ('kvm_amd.nested="1', []),
        ('"kvm_amd.nested"', []),
        ("kvm_amd.nested", ["options kvm_amd nested"]),
        ("a.b.c=1", []),
        ("modprobe.blacklist=kvm-amd,kvm_intel", ["blacklist kvm-amd", "blacklist kvm_intel"]),
    ],
)
def test_command_line_as_modprobe_reads_it(text: str, wanted: list[str]) -> None:
    found = modprobe.command_line(text)
    assert [" ".join((one.command, one.module, *one.arguments)) for one in found] == wanted
