# SPDX-License-Identifier: LGPL-2.1-or-later
"""What GRUB would boot, from generated files and from each rule by itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestd.text import bls, grub, grubshell
from nestd.text.grub import Choice
from nestd.text.grubshell import Untold
from tests.support.tree import CAPTURES

FILE = "/boot/grub/grub.cfg"
NEW, OLD = "6.12.0-2-amd64", "6.1.0-42-amd64"


def choose(text: str, entries: tuple[bls.Entry, ...] = (), platform: str = "pc", **beside: str) -> Choice:
    """The choice; `beside` are texts of grubenv and custom.cfg (`custom`)."""
    files = {{"custom": "custom.cfg"}.get(name, name): content for name, content in beside.items()}
    return grub.choose(text, file=FILE, beside=files, variables={"grub_platform": platform}, entries=entries)


def capture(name: str) -> str:
    return (CAPTURES / f"grub-{name}.cfg").read_text()


def env(**variables: str) -> str:
    """A grubenv, as grub-editenv writes it."""
    text = "# GRUB Environment Block\n" + "".join(f"{name}={value}\n" for name, value in variables.items())
    return text + "#" * (1024 - len(text))


@pytest.mark.parametrize(
    ("name", "grubenv", "kernel", "command_line", "line"),
    [
        ("mkconfig-debian", env(), NEW, "root=/dev/vda1 ro quiet kvm_amd.nested=0", 121),
        (
            "mkconfig-debian",
            env(next_entry="1>4"),
            "6.1.0-41-amd64",
            "root=/dev/vda1 ro quiet kvm_amd.nested=0",
            207,
        ),
        ("mkconfig-debian", env(next_entry="1>1"), NEW, "root=/dev/vda1 ro single", 156),
        ("mkconfig-debian", env(next_entry="9"), NEW, "root=/dev/vda1 ro quiet kvm_amd.nested=0", 121),
        ("mkconfig-debian", env(next_entry="nonsense"), NEW, "root=/dev/vda1 ro quiet kvm_amd.nested=0", 121),
        ("mkconfig-debian", env(saved_entry="1>4"), NEW, "root=/dev/vda1 ro quiet kvm_amd.nested=0", 121),
        ("mkconfig-saved", env(), NEW, 'root=/dev/vda1 ro kvm_amd.nested=1 quiet "dyndbg=file a.c +p"', 122),
        (
            "mkconfig-saved",
            env(
                saved_entry="gnulinux-advanced-5c1e2ab2-43d8-4a3d-9bd0-7a1f6b9ad002>"
                f"gnulinux-{OLD}-advanced-5c1e2ab2-43d8-4a3d-9bd0-7a1f6b9ad002"
            ),
            OLD,
            'root=/dev/vda1 ro kvm_amd.nested=1 quiet "dyndbg=file a.c +p"',
            176,
        ),
        (
            "mkconfig-saved",
            env(saved_entry="0", prev_saved_entry="Advanced options for Debian GNU/Linux>2"),
            NEW,  # prev_saved_entry is for the boot after this one
            'root=/dev/vda1 ro kvm_amd.nested=1 quiet "dyndbg=file a.c +p"',
            122,
        ),
        ("mkconfig-submenu", env(), OLD, "root=/dev/vda1 ro kvm_intel.nested=1", 156),
        (
            "mkconfig-quick",
            env(recordfail="1"),
            NEW,
            "root=/dev/vda1 ro kvm_intel.nested=0 quiet splash",
            126,
        ),
    ],
)
def test_generated_files(name: str, grubenv: str, kernel: str, command_line: str, line: int) -> None:
    choice = choose(capture(name), grubenv=grubenv)
    assert choice.kernel == f"/boot/vmlinuz-{kernel}"
    assert choice.initrd == f"/boot/initrd.img-{kernel}"
    assert (choice.command_line, choice.file) == (command_line, FILE)
    assert (choice.line, capture(name).split("\n")[choice.line - 1].split()[:2]) == (
        line,
        ["linux", f"/boot/vmlinuz-{kernel}"],
    )


def test_without_a_grubenv() -> None:
    assert choose(capture("mkconfig-debian")).line == 121
    assert choose(capture("mkconfig-saved")).line == 122


def _entry(ident: str, options: str, title: str = "") -> bls.Entry:
    text = f"title {title}\nversion 1\nlinux /vmlinuz-{ident}\ninitrd /initrd-{ident}\noptions {options}\n"
    return bls.entry(f"/boot/loader/entries/{ident}.conf", text)


FEDORA = (
    _entry("m-0-rescue", "$kernelopts", "Rescue"),
    _entry("m-6.9.5-200.fc40.x86_64", "root=UUID=9 kvm_intel.nested=1 $tuned_params", "Fedora (6.9.5)"),
    _entry("m-6.10.7-200.fc40.x86_64", '$kernelopts "a=b c" kvm_intel.nested=0', "Fedora (6.10.7)"),
)


@pytest.mark.parametrize(
    ("grubenv", "command_line", "file"),
    [
        (env(), 'root=UUID=1 ro rhgb quiet "a=b c" kvm_intel.nested=0', "m-6.10.7-200.fc40.x86_64"),
        (
            env(saved_entry="m-6.9.5-200.fc40.x86_64", tuned_params="skew_tick=1"),
            "root=UUID=9 kvm_intel.nested=1 skew_tick=1",
            "m-6.9.5-200.fc40.x86_64",
        ),
        (env(saved_entry="Fedora (6.9.5)"), "root=UUID=9 kvm_intel.nested=1", "m-6.9.5-200.fc40.x86_64"),
        (env(saved_entry="2", kernelopts="root=X ro"), "root=X ro", "m-0-rescue"),
        (
            env(saved_entry="m-6.10.7-200.fc40.x86_64", boot_counter="0", boot_success="0"),
            "root=UUID=9 kvm_intel.nested=1",
            "m-6.9.5-200.fc40.x86_64",
        ),
        (env(kernelopts="root=Y"), 'root=Y "a=b c" kvm_intel.nested=0', "m-6.10.7-200.fc40.x86_64"),
    ],
)
@pytest.mark.parametrize("platform", ["pc", "efi"])
def test_boot_loader_specification(grubenv: str, command_line: str, file: str, platform: str) -> None:
    choice = choose(capture("fedora"), FEDORA, platform, grubenv=grubenv)
    assert (choice.command_line, choice.file, choice.line) == (
        command_line,
        f"/boot/loader/entries/{file}.conf",
        5,
    )


def test_a_custom_file_adds_entries() -> None:
    custom = "set default=mine\nmenuentry 'x' --id mine {\n linux /k root=z\n}\n"
    choice = choose(capture("mkconfig-debian"), grubenv=env(), custom=custom)
    assert choice == Choice("x", "/k", "", "root=z", "/boot/grub/custom.cfg", 3)


TWO = "menuentry 'a>b' { linux /one 1 }\nmenuentry c --id=d {\n linux /two $x ${y}z\n initrd /i\n}\n"


@pytest.mark.parametrize(
    ("text", "command_line"),
    [
        (TWO, "1"),
        ("set default=1\n" + TWO, "z"),
        ("default=c; x=X; y='q r'\n" + TWO, "X q rz"),
        ("set default=d x=1\n" + TWO, "z"),
        ("set default='a>>b'\n" + TWO, "1"),
        (
            'if [ -n "$no" ]; then set default=0; elif true; then set default=1; else set default=0; fi\n'
            + TWO,
            "z",
        ),
        ("if test a = a ; then default=d\nfi\n" + TWO, "z"),
        ("if [ ! -z a ]; then default=d; fi\n" + TWO, "z"),
        ("if [ 2 -lt 10 -a a != b ]; then default=d; fi\n" + TWO, "z"),
        ("if [ x = y -o x = x ]; then default=d; fi\n" + TWO, "z"),
        ("if loadfont a; then set gfxmode=auto; terminal_output gfxterm; fi\n" + TWO, "1"),
        ("if keystatus --shift; then set default=0; fi\nset default=1\n" + TWO, "z"),
        ("function f { set default=$1; }\nf 1\n" + TWO, "z"),
        ('for i in 1 2; do insmod $i; done\nset default="1" # so\n' + TWO, "z"),
        ("submenu s {\n" + TWO + "}\n", "1"),
        ("default='s>1'\nsubmenu s {\n" + TWO + "}\n", "z"),
        ("default='s>c'\nsubmenu s {\n" + TWO + "}\n", "z"),
        ('menuentry x { echo \\"; l=\'a b\'; linux /k "$l" $l \\\n c "" }', '"a b" a b c '),
    ],
)
def test_rules(text: str, command_line: str) -> None:
    assert choose(text).command_line == command_line


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "makes no menu"),
        ("if keystatus --shift; then default=1; fi\n" + TWO, "by a condition that only GRUB can judge"),
        ("if cmostest 1; then menuentry x { linux /k; }; fi\n" + TWO, "is for GRUB to judge"),
        ('if [ "$grub_cpu" = i386 ]; then default=1; else default=0; fi\n' + TWO, "only GRUB can judge"),
        ("menuentry x { if [ -f /k ]; then linux /k; else linux /l; fi }", "loads more than one kernel"),
        ("menuentry x { if [ -f /k ]; then linux /k 1; fi }", "is for GRUB to judge"),
        ("menuentry x { search --set=root; linux /k root=$root }", "is for GRUB to judge"),
        ("menuentry x { chainloader /EFI/x.efi }", "does not itself boot a Linux kernel"),
        ("menuentry x { multiboot2 /xen; module2 /k }", "does not itself boot a Linux kernel"),
        ("source /elsewhere.cfg\n" + TWO, "cannot be found from here"),
        ("configfile /elsewhere.cfg\n" + TWO, "does not itself boot"),
        ("menuentry x { linux /k", "is missing"),
        ("menuentry 'x { linux /k }", "a quote is not closed"),
        ("if true; then echo\n", "is missing"),
        ("fi\n", "out of place"),
        ("a | b\n", "not understood"),
        ("function f { f; f; }\nf\n" + TWO, "calls or reads itself"),
        ("default='s>s>s>s>s>s>s>s>s'\n" + "submenu s {\n" * 9 + TWO + "}\n" * 9, "nested too deeply"),
        ("if true; then\n" * 1000, "nested too deeply"),
    ],
)
def test_what_cannot_be_told(text: str, why: str) -> None:
    with pytest.raises(Untold, match=why):
        choose(text)


_WORDS = (
    *"{}[];\n '\"\\$#|",
    *(
        "if ",
        "then ",
        "fi ",
        "else ",
        "menuentry ",
        "set ",
        "a=",
        "$a",
        "linux ",
        "function f",
        "submenu x ",
        "${",
    ),
    *("for i in ", "do ", "done ", "test "),
)


@given(st.lists(st.sampled_from(_WORDS)))
def test_any_text_is_told_or_untold(words: list[str]) -> None:
    try:
        choose("".join(words))
    except Untold as told:
        assert str(told)


def test_environment_block() -> None:
    text = "# GRUB Environment Block\na=1\nb=x\\\\y\\\nz\nc\n####"
    assert grubshell.environment(text) == {"a": "1", "b": "x\\y"}
