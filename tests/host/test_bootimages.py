# SPDX-License-Identifier: LGPL-2.1-or-later
"""The initramfs of each installed kernel, and which are none of ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from nestd.host.bootimages import Installed, copies, installed, presets
from nestd.host.bootloader import NextBoot
from tests.support.tree import RELEASE, Tree

IMAGE = f"/boot/initrd.img-{RELEASE}"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def boots(initrd: str, release: str = RELEASE, doubt: str = "") -> NextBoot:
    return NextBoot("GRUB", "/boot/grub/grub.cfg:1", "ro", release, initrd, doubt)


@pytest.mark.parametrize(
    "name", ["initrd.img-{}", "initramfs-{}.img", "initrd-{}", "initramfs-{}"]
)  # Debian; Fedora; openSUSE; Gentoo
def test_named_after_the_kernel(tree: Tree, name: str) -> None:
    path = "/boot/" + name.format(RELEASE)
    tree.write(path, "x").write(path.replace(RELEASE, "9.9"), "of a kernel that is gone").write(
        f"{path}.bak", "x"
    )
    assert installed(tree.root, None, RELEASE) == (Installed(path, RELEASE, next=True),)


def test_the_next_boot_comes_first(tree: Tree) -> None:
    tree.write("/lib/modules/5.10/modules.dep", "").write(IMAGE, "x").write("/boot/initrd.img-5.10", "y")
    found = installed(tree.root, boots("/boot/initrd.img-5.10", "5.10"), RELEASE)
    assert found == (Installed("/boot/initrd.img-5.10", "5.10", next=True), Installed(IMAGE, RELEASE))
    assert installed(tree.root, boots(IMAGE), RELEASE)[0] == Installed(IMAGE, RELEASE, next=True)
    # What boots cannot be told: then that of the running kernel.
    assert installed(tree.root, boots("", "", "why"), RELEASE)[0] == Installed(IMAGE, RELEASE, next=True)


def test_by_another_name(tree: Tree) -> None:
    tree.write(IMAGE, "x").path("/boot/initrd.img").symlink_to(Path(IMAGE).name)
    assert installed(tree.root, boots("/boot/initrd.img", ""), RELEASE) == (
        Installed(IMAGE, RELEASE, next=True),
    )


def test_of_a_kernel_that_nobody_knows(tree: Tree) -> None:
    """It is not taken for that of the running kernel."""
    tree.write("/boot/custom", "x")
    assert installed(tree.root, boots("/boot/custom", ""), RELEASE) == (
        Installed("/boot/custom", "", next=True),
    )


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("PRESETS=('default')\ndefault_image=/boot/a\nfallback_image=/boot/b\n", ["/boot/a"]),
        (
            "PRESETS=(a b)\na_uki='/efi/a.efi'\n# b_image=/boot/b\nb_efi_image=\"/efi/b.efi\"\n",
            ["/efi/a.efi", "/efi/b.efi"],
        ),
        ("PRESETS=(a)\na_image=/boot/../etc/passwd\na_options=/x\n", []),
        ("a_image=/boot/a\n", []),
        ("", []),
    ],
)
def test_presets(tree: Tree, text: str, paths: list[str]) -> None:
    tree.write("/etc/mkinitcpio.d/linux.preset", text).write(
        "/etc/mkinitcpio.d/linux.preset.pacsave", "PRESETS=(a)"
    )
    assert list(presets(tree.root)) == [Installed(path, "", "linux") for path in paths]


@pytest.mark.parametrize(
    ("token", "machine", "ours"),
    [("", "abc", "abc"), ("debian", "abc", "debian"), ("../..", "", "Default"), ("", "", "Default")],
)
def test_what_kernel_install_has_copied(tree: Tree, token: str, machine: str, ours: str) -> None:
    tree.write("/etc/kernel/entry-token", f"{token}\n").write("/etc/machine-id", f"{machine}\n")
    for name in (ours, "another"):
        tree.write(f"/efi/{name}/{RELEASE}/initrd", "x").write(f"/efi/{name}/{RELEASE}/linux", "x")
        tree.write(f"/efi/{name}/{RELEASE}/initrd.nestd-new", "a crash has left this")
        for entry in (RELEASE, f"{RELEASE}+3-1", f"{RELEASE}-rt"):
            tree.write(f"/efi/loader/entries/{name}-{entry}.conf", "x")
    assert copies(tree.root, RELEASE) == (
        f"/efi/{ours}/{RELEASE}/initrd",
        f"/efi/loader/entries/{ours}-{RELEASE}+3-1.conf",
        f"/efi/loader/entries/{ours}-{RELEASE}.conf",
    )
    assert installed(tree.root, None, "9") == (Installed(f"/efi/{ours}/{RELEASE}/initrd", RELEASE),)


def test_an_image_that_is_named_after_the_distribution(tree: Tree) -> None:
    tree.write("/etc/os-release", "ID=arch\n").write(f"/boot/arch/{RELEASE}/initrd", "x")
    assert copies(tree.root, RELEASE) == (f"/boot/arch/{RELEASE}/initrd",)
