# SPDX-License-Identifier: LGPL-2.1-or-later
"""nestd.conf and its folders: which files count, in which order, and what is said of the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from nestd.host.configuration import FILE, FOLDERS, Settings, read
from tests.support.tree import Tree

ETC, RUN, LOCAL, USR = FOLDERS
ON, OFF = "[Nesting]\nEnforce=when-idle\n", "[Nesting]\nEnforce=no\n"
GRUB = "[Boot]\nLoader=grub\n"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_nothing_is_there(tree: Tree) -> None:
    assert read(tree.root) == Settings(enforce=False, loader="")


def test_a_later_file_wins_and_says_nothing_of_other_keys(tree: Tree) -> None:
    tree.write(FILE, ON + GRUB)
    assert read(tree.root) == Settings(enforce=True, loader="grub")
    tree.write(f"{ETC}/10-off.conf", OFF)
    assert read(tree.root) == Settings(enforce=False, loader="grub")
    tree.write(f"{ETC}/20-on.conf", ON).write(f"{ETC}/30-off.conf.bak", OFF)
    assert read(tree.root) == Settings(enforce=True, loader="grub")
    tree.write(f"{ETC}/90-auto.conf", "[Boot]\nLoader=auto\n")
    assert read(tree.root) == Settings(enforce=True, loader="")


def test_the_files_for_the_fleet(tree: Tree) -> None:
    tree.write(FILE, "[Export]\nPrometheusTextfile=/a/nestd.prom\nNodeFeatureFile=/b/nestd\n")
    assert read(tree.root) == Settings(prometheus="/a/nestd.prom", features="/b/nestd")
    tree.write(f"{ETC}/10-not.conf", "[Export]\nPrometheusTextfile=none\n")
    assert read(tree.root) == Settings(features="/b/nestd")


@pytest.mark.parametrize("same", ["/a/nestd.prom", "//a//nestd.prom"])
def test_one_file_for_both_is_left_to_the_first(
    tree: Tree, capfd: pytest.CaptureFixture[str], same: str
) -> None:
    tree.write(FILE, f"[Export]\nNodeFeatureFile={same}\nPrometheusTextfile=/a/nestd.prom\n")
    assert read(tree.root) == Settings(prometheus="/a/nestd.prom")
    assert "both name /a/nestd.prom, and each would" in capfd.readouterr().err


def test_names_decide_the_order_whatever_the_folder(tree: Tree) -> None:
    tree.write(f"{ETC}/10-mine.conf", ON).write(f"{USR}/50-vendor.conf", OFF)
    assert read(tree.root).enforce is False
    tree.write(f"{RUN}/60-run.conf", ON)
    assert read(tree.root).enforce is True
    tree.write(f"{LOCAL}/70-local.conf", OFF)
    assert read(tree.root).enforce is False


def test_the_first_folder_masks_the_others(tree: Tree) -> None:
    tree.write(f"{USR}/50-x.conf", ON)
    assert read(tree.root).enforce is True
    tree.write(f"{RUN}/50-x.conf", GRUB)
    assert read(tree.root) == Settings(enforce=False, loader="grub")
    tree.path(ETC).mkdir(parents=True)
    tree.path(f"{ETC}/50-x.conf").symlink_to("/dev/null")
    assert read(tree.root) == Settings()


def test_what_is_wrong_is_named_and_the_rest_counts(tree: Tree, capfd: pytest.CaptureFixture[str]) -> None:
    tree.write(FILE, ON)
    tree.write(
        f"{ETC}/50-typo.conf", "\n[Nesting]\nEnforce=on\n[Other]\n\udcff=\x1b\n[Boot]\nLoader=lilo\n" + GRUB
    )
    assert read(tree.root) == Settings(enforce=True, loader="grub")
    said = capfd.readouterr().err
    assert f"{ETC}/50-typo.conf:3: Enforce= takes no or when-idle, not 'on'." in said
    assert f"{ETC}/50-typo.conf:4: there is no section [Other]" in said
    assert f"{ETC}/50-typo.conf:7: Loader= takes auto, grub, grubby" in said


def test_what_cannot_be_read_is_named_and_the_rest_counts(
    tree: Tree, capfd: pytest.CaptureFixture[str]
) -> None:
    tree.path(FILE).mkdir(parents=True)
    tree.write(f"{ETC}/10-on.conf", ON)
    assert read(tree.root).enforce is True
    assert f"{FILE} cannot be read, so it does not count: Is a directory." in capfd.readouterr().err


def test_a_folder_that_cannot_be_read_is_named(tree: Tree, capfd: pytest.CaptureFixture[str]) -> None:
    tree.path("/run/nestd").mkdir(parents=True)
    tree.path(RUN).symlink_to(RUN.rpartition("/")[2])  # ELOOP, which root meets too
    tree.write(f"{USR}/10-on.conf", ON)
    assert read(tree.root).enforce is True
    assert f"{RUN} cannot be read, so it does not count: Too many levels" in capfd.readouterr().err
