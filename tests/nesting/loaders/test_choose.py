# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which back end it is, and what is said where there is none."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from nestd import errors
from nestd.host import bootloader
from nestd.nesting.loaders import advice, choose
from nestd.nesting.loaders.choose import Found
from nestd.nesting.loaders.probe import Fit, Probe
from nestd.text.arguments import Edit
from tests.host.test_bootloader import entry, grub, systemd_boot, uki
from tests.nesting.loaders.carried import OFF, ON
from tests.nesting.machines import Machine
from tests.support.loop import run
from tests.support.tree import Tree

ADD, WANTED = Edit((ON,)), Edit((ON,), (OFF,))
BOTH = f"Take {OFF} off"
EFI = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine.of(Tree(tmp_path).amd())


def refused(machine: Machine, wanted: Edit = ADD, name: str = "") -> str:
    """The words of the refusal on a machine where nobody fits."""
    host, following = machine.host, bootloader.read(machine.host.root)
    found = run(choose.probed(host, following))
    assert len(found) == len(choose.every())
    with pytest.raises(errors.BootloaderUnknown) as caught:
        choose.choose(host, following, found, name, wanted)
    text = str(caught.value)
    assert "Nothing was changed." in text and "  " not in text and text.endswith(".")
    return text


def test_every_one_has_a_name_and_a_title() -> None:
    names = [one.name for one in choose.every()]
    assert sorted(names) == ["bootc", "grub", "grubby", "kernel-install", "ostree", "rpm-ostree"]
    assert all(choose.named(name).name == name for name in names)
    assert len({one.title for one in choose.every()}) == len(names)
    with pytest.raises(errors.InvalidArgs, match=r"no boot loader back end 'lilo'\. There are: rpm-ostree, "):
        choose.named("lilo")


def found(machine: Machine, **fits: Fit) -> tuple[Found, ...]:
    """All of them, saying this of themselves; else that they do not fit."""
    return tuple(
        Found(one, Probe(fits.get(one.name.replace("-", "_"), Fit.NOT), f"{one.name} was seen by something"))
        for one in choose.every()
    )


def chosen(machine: Machine, given: tuple[Found, ...], name: str = "") -> str:
    return choose.choose(machine.host, None, given, name, Edit((ON,))).name


def test_the_only_one(machine: Machine) -> None:
    assert chosen(machine, found(machine, grub=Fit.FITS)) == "grub"
    # who does not know is not taken for one that does
    assert chosen(machine, found(machine, grub=Fit.FITS, grubby=Fit.UNSURE)) == "grub"


def test_several_are_named(machine: Machine) -> None:
    both = found(machine, grub=Fit.FITS, kernel_install=Fit.FITS)
    with pytest.raises(errors.BootloaderUnknown) as caught:
        chosen(machine, both)
    assert str(caught.value) == (
        "More than one boot loader may give the next kernel its command line: GRUB (/etc/default/grub.d "
        "and update-grub), as grub was seen by something; systemd-boot (/etc/kernel/cmdline and the "
        "entries that kernel-install made), as kernel-install was seen by something. Nothing was changed. "
        "Say which one is meant: nestctl --loader=grub or --loader=kernel-install (over D-Bus the option "
        "loader)."
    )
    assert chosen(machine, both, "kernel-install") == "kernel-install"


def test_one_that_is_unsure_can_be_named(machine: Machine) -> None:
    unsure = found(machine, grubby=Fit.UNSURE)
    assert chosen(machine, unsure, "grubby") == "grubby"
    words = r"It may be grubby \(grubby was seen by something\): if so, say --loader=grubby\. "
    with pytest.raises(errors.BootloaderUnknown, match=words):
        chosen(machine, unsure)


def test_one_that_does_not_fit_cannot_be_named(machine: Machine) -> None:
    text = refused(machine, name="grub")
    assert text.startswith(
        "GRUB (/etc/default/grub.d and update-grub) does not write the kernel command line here"
    )
    assert "no grub.cfg is found" in text
    with pytest.raises(errors.InvalidArgs, match="no boot loader back end 'lilo'"):
        chosen(machine, found(machine), "lilo")


def secure(tree: Tree, state: str) -> Tree:
    return tree.write(EFI, f"\6\0\0\0{state}")


# A kind of system, and the exact words it is told: with an argument to add, and one to take away as well.
KINDS: list[tuple[Callable[[Tree], object], tuple[str, ...]]] = [
    (
        lambda tree: tree.write("/proc/sys/kernel/osrelease", "5.15.167.4-microsoft-standard-WSL2\n"),
        (
            "kernelCommandLine = in section [wsl2] of %UserProfile%\\.wslconfig",
            "run wsl --shutdown in Windows",
        ),
    ),
    (
        lambda tree: tree.write("/run/.containerenv", ""),
        ("This is a container", "to the kernel command line of the host, by nestd there"),
    ),
    (
        lambda tree: tree.write("/run/ostree-booted", ""),
        (
            f"rpm-ostree kargs --append-if-missing={ON}",
            f"ostree admin kargs edit-in-place --append-if-missing={ON}",
        ),
    ),
    (
        lambda tree: secure(uki(systemd_boot(tree), "debian.efi", "root=1"), "\1"),
        (
            "/efi/EFI/Linux/debian.efi, whose command line is signed with it: under Secure Boot no other",
            f"Add {ON} to the line in /etc/kernel/cmdline, then make the image anew: kernel-install add ",
            "Sign it with your key",
        ),
    ),
    (
        lambda tree: secure(uki(systemd_boot(tree), "debian.efi", "root=1"), "\0"),
        ("/efi/EFI/Linux/debian.efi, with its command line. Add", "kernel-install add "),
    ),
    (
        lambda tree: entry(tree, "mine", "root=1"),
        (f"Add {ON} to the row options in /boot/loader/entries/mine.conf:3", "to /etc/kernel/cmdline if"),
    ),
    (
        grub,
        (
            f"Add {ON} to GRUB_CMDLINE_LINUX in /etc/default/grub, then run grub-mkconfig -o /boot",
            " -o /boot/grub/grub.cfg and reboot.",
        ),
    ),
    (
        lambda tree: grub(tree, folder="/boot/grub2"),
        ("GRUB_CMDLINE_LINUX in /etc/default/grub, then run grub2-mkconfig -o /boot/grub2/grub.cfg and re",),
    ),
    (
        lambda tree: grub(tree, folder="/boot/efi/EFI/redhat"),
        ("then run grub2-mkconfig -o /boot/efi/EFI/redhat/grub.cfg and reboot",),
    ),
    (
        lambda tree: grub(tree, folder="/boot/grub2").write("/etc/default/grub", "GRUB_ENABLE_BLSCFG=true\n"),
        (
            "grubby, which edits them, is not installed",
            f'grubby --update-kernel=ALL --args="{ON}" and reboot',
        ),
    ),
    (
        lambda tree: tree.write("/etc/zipl.conf", "[defaultboot]\n"),
        (f"Add {ON} to parameters= in /etc/zipl.conf, then run zipl and reboot",),
    ),
    (
        lambda tree: tree.write("/boot/firmware/cmdline.txt", "root=1\n"),
        ("takes the command line from /boot/firmware/cmdline.txt. Add", "to its only line, then reboot"),
    ),
    (
        lambda tree: tree.write("/boot/extlinux/extlinux.conf", "label l0\n").write(
            "/etc/default/u-boot", ""
        ),
        (f"Add {ON} to U_BOOT_PARAMETERS in /etc/default/u-boot, then run u-boot-update and reboot",),
    ),
    (
        lambda tree: tree.write("/boot/extlinux/extlinux.conf", "label l0\n"),
        (f"Add {ON} to each row append in it, then reboot",),
    ),
    (
        lambda tree: None,
        ("come from outside, and nothing in here can change them", "(QEMU: -append; libvirt: <cmdline>"),
    ),
]


@pytest.mark.parametrize(
    ("kind", "words"), KINDS, ids=[re.sub(r"\W+", "-", words[0])[:40] for _, words in KINDS]
)
def test_nobody_fits(machine: Machine, kind: Callable[[Tree], object], words: tuple[str, ...]) -> None:
    kind(machine.tree)
    text = refused(machine)
    assert text.startswith(
        "Only the kernel command line can do this, and nestd does not know who writes it here."
    )
    assert ON in text and all(one in text for one in words), text
    both = refused(machine, WANTED)
    assert ON in both and OFF in both and OFF not in text
    following = bootloader.read(machine.host.root)
    assert both.endswith(advice.by_hand(machine.host.root, following, WANTED))


def test_only_away(machine: Machine) -> None:
    text = refused(grubbed(machine), Edit((), (OFF,)))
    assert f"{BOTH} GRUB_CMDLINE_LINUX in /etc/default/grub, then run" in text


def grubbed(machine: Machine) -> Machine:
    grub(machine.tree)
    return machine
