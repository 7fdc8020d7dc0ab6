# SPDX-License-Identifier: LGPL-2.1-or-later
"""What ostree boots next, from trees (the real ostree: tests/nesting/loaders/test_ostree.py)."""

from __future__ import annotations

from pathlib import Path

from nestd.host import bootloader, ostree
from tests.support.tree import CAPTURES, Tree

DATA = (CAPTURES / "ostree-staged-deployment").read_bytes()


def entries(tree: Tree, count: int = 2) -> Tree:
    for number in range(1, count + 1):
        text = f"title x\nversion {number}\noptions root=LABEL={number} ro\nlinux /vmlinuz\n"
        tree.write(f"/boot/loader/entries/ostree-{number}-debian.conf", text)
    return tree


def stage(tree: Tree, data: bytes = DATA) -> None:
    tree.path("/run/ostree").mkdir(parents=True)
    tree.path(ostree.STAGED).write_bytes(data)


def test_the_first_deployment_has_the_highest_version(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    assert ostree.default(tree.root) is None
    assert ostree.options(tree.root) is None
    tree.write("/boot/loader/entries/zz-debian.conf", "version 99\noptions x\nlinux /y\n")
    entries(tree, 11)
    assert ostree.options(tree.root) == (
        "root=LABEL=11 ro",
        "/boot/loader/entries/ostree-11-debian.conf:3",
    )


def test_what_is_staged_comes_before_the_entries(tmp_path: Path) -> None:
    tree = entries(Tree(tmp_path))
    before = bootloader.read(tree.root)
    assert before is not None
    assert before.command_line == "root=LABEL=2 ro"
    stage(tree)
    following = bootloader.read(tree.root)
    assert following is not None
    assert following.command_line.endswith("kvm_amd.nested=1")
    assert (following.loader, following.source, following.release, following.initrd, following.doubt) == (
        *("ostree", ostree.STAGED),
        *("", "", ""),
    )
    assert ostree.options(tree.root) == (following.command_line, ostree.STAGED)
    tree.write(ostree.LOCKED, "")
    assert bootloader.read(tree.root) == before


def test_its_kernel(tmp_path: Path) -> None:
    tree = entries(Tree(tmp_path))
    stage(tree)
    found = ostree.pending(tree.root)
    assert found is not None
    release = "6.12.0-1-amd64"
    tree.write(f"/lib/modules/{release}/modules.dep", "")
    image = f"{found.folder}/usr/lib/modules/{release}/initramfs.img"
    tree.write(image, "")
    following = bootloader.read(tree.root)
    assert following is not None
    assert (following.release, following.initrd) == (release, image)


def test_one_that_cannot_be_read_is_a_doubt(tmp_path: Path) -> None:
    tree = entries(Tree(tmp_path))
    stage(tree, DATA[:-3])
    following = bootloader.read(tree.root)
    assert following is not None
    assert ostree.STAGED in following.doubt
    assert following.command_line == ""
