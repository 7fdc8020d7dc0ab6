# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which boot loader's configuration counts, and what it says, from trees as systems have them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nestd.host import bootloader, efi
from nestd.host.bootloader import NextBoot
from tests.support.images import unified
from tests.support.tree import CAPTURES, RELEASE, Tree

NEW = "6.12.0-2-amd64"


def grub(tree: Tree, name: str = "mkconfig-debian", folder: str = "/boot/grub") -> Tree:
    return tree.write(f"{folder}/grub.cfg", (CAPTURES / f"grub-{name}.cfg").read_text())


def variable(tree: Tree, name: str, text: str) -> Tree:
    path = tree.path(efi.variable_path(name))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\7\0\0\0" + text.encode("utf-16-le") + b"\0\0")
    return tree


def entry(tree: Tree, ident: str, options: str, partition: str = "/boot", **more: str) -> Tree:
    lines = {"linux": f"/{ident}/linux", "initrd": f"/{ident}/initrd", "options": options, **more}
    text = "".join(f"{key.replace('_', '-')} {value}\n" for key, value in lines.items())
    return tree.write(f"{partition}/loader/entries/{ident}.conf", text)


def uki(tree: Tree, name: str, cmdline: str, partition: str = "/efi", **more: str) -> Tree:
    path = tree.path(f"{partition}/EFI/Linux/{name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    osrel = "".join(f'{key}="{value}"\n' for key, value in {"ID": "debian", **more}.items())
    parts = {
        ".osrel": osrel.encode(),
        ".cmdline": cmdline.encode() + b"\0",
        ".uname": NEW.encode(),
        ".linux": b"k",
    }
    path.write_bytes(unified(parts))
    return tree


def systemd_boot(tree: Tree) -> Tree:
    return variable(tree, "LoaderInfo", "systemd-boot 252.39-1~deb12u1")


def modules(tree: Tree, release: str = NEW) -> Tree:
    return tree.write(f"/lib/modules/{release}/modules.dep", "")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return modules(Tree(tmp_path).amd())


def told(tree: Tree) -> tuple[str, str, str]:
    following = bootloader.read(tree.root)
    assert following is not None and not following.doubt, following
    return following.loader, following.command_line, following.source


def test_none(tree: Tree) -> None:
    assert bootloader.read(tree.root) is None


def test_grub(tree: Tree) -> None:
    grub(tree).write(f"/boot/initrd.img-{NEW}", "")
    assert bootloader.read(tree.root) == NextBoot(
        "GRUB",
        "/boot/grub/grub.cfg:121",
        "root=/dev/vda1 ro quiet kvm_amd.nested=0",
        NEW,
        f"/boot/initrd.img-{NEW}",
        "",
    )


def test_a_kernel_without_modules_here_has_no_release(tree: Tree) -> None:
    following = bootloader.read(grub(tree.gone(f"/lib/modules/{NEW}")).root)
    assert following is not None and (following.release, following.initrd) == ("", "")


GRUB_ENV = "# GRUB Environment Block\nsaved_entry=m-1\nkernelopts=root=UUID=1 kvm_amd.nested=1\n"
CASES: list[tuple[Callable[[Tree], Tree], tuple[str, str, str]]] = [
    (
        lambda tree: entry(
            entry(grub(tree, "fedora", "/boot/grub2"), "m-1", "$kernelopts ro"), "m-2", "root=2"
        ).write("/boot/grub2/grubenv", GRUB_ENV),
        ("GRUB", "root=UUID=1 kvm_amd.nested=1 ro", "/boot/loader/entries/m-1.conf:3"),
    ),
    (
        lambda tree: grub(tree, folder="/boot/efi/EFI/redhat"),
        ("GRUB", "root=/dev/vda1 ro quiet kvm_amd.nested=0", "/boot/efi/EFI/redhat/grub.cfg:121"),
    ),
    # Debian with both: the variable tells who booted.
    (
        lambda tree: systemd_boot(entry(grub(tree), "m-1", "root=1", "/efi")),
        ("systemd-boot", "root=1", "/efi/loader/entries/m-1.conf:3"),
    ),
    (
        lambda tree: variable(entry(grub(tree), "m-1", "root=1"), "LoaderInfo", "GRUB 2.12"),
        ("GRUB", "root=/dev/vda1 ro quiet kvm_amd.nested=0", "/boot/grub/grub.cfg:121"),
    ),
    (
        lambda tree: entry(entry(tree, "m-6.9", "a"), "m-6.10", "b"),
        ("systemd-boot", "b", "/boot/loader/entries/m-6.10.conf:3"),
    ),
    (
        lambda tree: entry(entry(tree, "m-6.9", "a"), "m-6.10", "b").write(
            "/boot/loader/loader.conf", "default M-6.9*\n"
        ),
        ("systemd-boot", "a", "/boot/loader/entries/m-6.9.conf:3"),
    ),
    (
        lambda tree: variable(
            entry(entry(tree, "m-6.9", "a"), "m-6.10", "b").write(
                "/boot/loader/loader.conf", "default @saved"
            ),
            "LoaderEntryLastBooted",
            "m-6.9.conf",
        ),
        ("systemd-boot", "a", "/boot/loader/entries/m-6.9.conf:3"),
    ),
    (
        lambda tree: variable(
            entry(entry(tree, "m-6.9", "a"), "m-6.10", "b"), "LoaderEntryOneShot", "m-6.9.conf"
        ),
        ("systemd-boot", "a", "/boot/loader/entries/m-6.9.conf:3"),
    ),
    # The extended boot loader partition beside the EFI system partition, and a unified kernel image.
    (
        lambda tree: uki(
            entry(tree, "m-6.9", "a", sort_key="debian", version="6.9").write("/efi/loader/loader.conf", ""),
            "debian.efi",
            "root=u kvm_amd.nested=0",
        ),
        ("systemd-boot", "root=u kvm_amd.nested=0", "/efi/EFI/Linux/debian.efi"),
    ),
    (
        lambda tree: uki(
            tree.write("/efi/loader/entries/x.conf", "uki /EFI/Linux/d.efi\n"), "d.efi", "inside"
        ).write("/efi/loader/loader.conf", "default x.conf\n"),
        ("systemd-boot", "inside", "/efi/EFI/Linux/d.efi"),
    ),
    # systemd-boot takes a path without the slash in front for one from the partition's top.
    (
        lambda tree: uki(
            tree.write("/efi/loader/entries/x.conf", "uki EFI/Linux/d.efi\n"), "d.efi", "inside"
        ).write("/efi/loader/loader.conf", "default x.conf\n"),
        ("systemd-boot", "inside", "/efi/EFI/Linux/d.efi"),
    ),
    (
        lambda tree: uki(tree, "only.efi", "root=only", "/boot/efi"),
        ("the firmware", "root=only", "/boot/efi/EFI/Linux/only.efi"),
    ),
]


@pytest.mark.parametrize(("build", "wanted"), CASES)
def test_systems(tree: Tree, build: Callable[[Tree], Tree], wanted: tuple[str, str, str]) -> None:
    assert told(build(tree)) == wanted


@pytest.mark.parametrize(
    ("build", "why"),
    [
        (lambda tree: uki(uki(tree, "a.efi", "1"), "b.efi", "2"), "several unified kernel images"),
        (systemd_boot, "no entry that could be found"),
        (
            lambda tree: entry(tree, "m", "a").write("/boot/loader/loader.conf", "default auto-windows\n"),
            "none of its entries",
        ),
        (lambda tree: tree.write("/efi/loader/entries/x.conf", "title x\n"), "boots no Linux kernel"),
        (
            lambda tree: tree.write("/efi/loader/entries/x.conf", "uki /EFI/../d.efi\n"),
            "starts /EFI/../d.efi, which is not found",
        ),
        (
            lambda tree: tree.write("/efi/loader/entries/x.conf", "uki /EFI/d\0.efi\n"),
            "starts /EFI/d\0.efi, which is not found",
        ),
        (
            lambda tree: tree.write("/efi/loader/entries/x.conf", "uki /EFI/gone.efi\n"),
            "starts /EFI/gone.efi, which is not found",
        ),
        (lambda tree: tree.write("/efi/EFI/Linux/x.efi", "not one"), "not a PE file"),
        (lambda tree: tree.write("/boot/grub/grub.cfg", "menuentry 'x {\n"), "a quote is not closed"),
        (
            lambda tree: tree.write("/boot/grub/grub.cfg/x", ""),
            "GRUB configuration cannot be read (Is a directory)",
        ),
    ],
)
def test_doubts(tree: Tree, build: Callable[[Tree], Tree], why: str) -> None:
    following = bootloader.read(build(tree).root)
    assert following is not None and why in following.doubt, following


def test_read_again_only_after_a_change(tree: Tree) -> None:
    first = bootloader.read(grub(tree).root)
    assert bootloader.read(tree.root) is first
    tree.write("/boot/grub/grubenv", "# GRUB Environment Block\nnext_entry=1>1\n")
    second = bootloader.read(tree.root)
    assert second is not None and second.command_line == "root=/dev/vda1 ro single"
    os.utime(tree.path("/boot/grub/grubenv"), ns=(1, 1))
    third = bootloader.read(tree.root)
    assert third == second and third is not second


@pytest.mark.parametrize(
    ("kernel", "version", "wanted"),
    [
        (f"/boot/vmlinuz-{RELEASE}", "", RELEASE),
        (f"/m/{NEW}/linux", "", NEW),
        ("/vmlinuz", NEW, NEW),
        ("/vmlinuz-..", "../x", ""),
        ("/vmlinuz-1.2.3", "", ""),
    ],
)
def test_release(tree: Tree, kernel: str, version: str, wanted: str) -> None:
    entry(tree, "x", "a", linux=kernel, **({"version": version} if version else {}))
    following = bootloader.read(tree.root)
    assert following is not None and following.release == wanted


def test_an_efi_partition_is_watched_unless_it_mounts_itself(tmp_path: Path) -> None:
    tree = Tree(tmp_path).write(
        "/proc/self/mountinfo",
        "22 1 254:1 / / rw,relatime - ext4 /dev/vda1 rw\n"
        "41 22 254:2 / /boot/efi rw,relatime shared:2 - vfat /dev/vda2 rw\n"
        "50 22 0:40 / /efi rw,relatime shared:9 - autofs systemd-1 rw,fd=1\n"
        "51 50 254:3 / /efi rw,relatime shared:10 - vfat /dev/vda3 rw\n",
    )
    folders = bootloader.folders(tree.root)
    assert "/boot/efi/loader/entries" in folders and "/boot/grub" in folders
    assert not [folder for folder in folders if folder.startswith("/efi")]
