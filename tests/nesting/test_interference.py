# SPDX-License-Identifier: LGPL-2.1-or-later
"""Somebody else at the driver at each moment of a change, or first after a kill or a reboot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nestd import errors
from nestd.model import Scope, Verdict
from nestd.nesting import steps
from nestd.nesting.heal import check
from nestd.nesting.ledger import BOOT_ID, Ledger
from nestd.nesting.store import CHANGE
from tests.nesting.ground import (
    OFF,
    ON,
    RELOADS,
    Ground,
    Start,
    assert_settled,
    away,
    build,
    copy,
    counted,
    kills,
    old_and_new,
)
from tests.nesting.kernel import insert, remove
from tests.support.tree import RELEASE, Tree


def autoload(tree: Tree) -> None:
    """As udev does when it sees the CPU again."""
    insert(tree, "kvm_amd", {})


def by_hand(tree: Tree) -> None:
    """Somebody who wants it otherwise."""
    if tree.root.exists("/sys/module/kvm_amd"):
        remove(tree, "kvm_amd")
    insert(tree, "kvm_amd", {"nested": "1", "npt": "Y"})
    remove(tree, "kvm_amd")
    insert(tree, "kvm_amd", {"nested": "0", "avic": "Y"})


@pytest.mark.parametrize("act", [autoload, by_hand, away])
@pytest.mark.parametrize(("start", "wish"), RELOADS)
def test_somebody_elses_modprobe_at_each_moment(
    top: Path, start: Start, wish: steps.Wish, act: Callable[[Tree], None]
) -> None:
    """Before and after each of our own calls of modprobe and rmmod."""
    _, new = old_and_new(top, start, wish)
    whole = build(top / "whole", start)
    for number in range(100):
        tree = copy(whole, top / "other")
        came: list[bool] = []

        def come(tree: Tree = tree, came: list[bool] = came) -> None:
            came.append(True)
            act(tree)

        ground = Ground.of(tree, counted(come, number, only=" "))
        ground.change(wish)
        if not came:
            assert number > 1
            return
        state = ground.state()
        assert state.dropin == new.dropin and state.switch == new.switch, number
        if start.by_hand:
            assert dict(state.parameters or ())["npt"] == "N", number
        assert not tree.root.exists(CHANGE)


@pytest.mark.parametrize(("start", "wish"), RELOADS)
def test_taken_into_use_at_each_moment(top: Path, start: Start, wish: steps.Wish) -> None:
    """Somebody starts a guest as soon as there is a driver. What then cannot be undone is said until then."""
    old, new = old_and_new(top, start, wish)
    whole = build(top / "whole", start)
    for number in range(100):
        tree = copy(whole, top / "used")
        came: list[bool] = []

        def come(tree: Tree = tree, came: list[bool] = came) -> None:
            came.append(True)
            insert(tree, "kvm_amd", {})
            tree.write("/sys/module/kvm_amd/refcnt", "1\n")

        ground = Ground.of(tree, counted(come, number, only=" "))
        try:
            ground.change(wish)
            assert ground.state() == new, number
        except (errors.InUse, errors.ReloadFailed):
            assert ground.state() == old, number
            assert not tree.root.exists(CHANGE), number
        except errors.RollbackFailed as failure:
            assert "kvm_amd is in use" in str(failure)
            assert ground.state().dropin == old.dropin, number
            again = ground.heal()
            row = check(ground.host, again, "")
            assert (row.id, row.verdict) == ("change", Verdict.FAIL) and row.remedy
            assert "kvm_amd is in use" in row.message
            tree.write("/sys/module/kvm_amd/refcnt", "0\n")
            again = ground.heal()
            assert ground.state() == old, number
            assert_settled(ground, again)
        if not came:
            assert number > 1
            return


def test_what_is_as_wished_stays_though_a_guest_has_it(top: Path) -> None:
    """Loaded by us or by udev, and the entry is missing: nothing is left to go on with, or to undo."""
    start, wish = Start(ON, None), steps.Wish(OFF, Scope.BOTH)
    _, new = old_and_new(top, start, wish)
    seen = 0
    for number, ground in kills(top, start, wish):
        insert(ground.tree, "kvm_amd", {})
        if ground.state() == new and ground.tree.root.exists(CHANGE):
            ground.tree.write("/sys/module/kvm_amd/refcnt", "1\n")
            ground.heal()
            assert ground.state() == new, number
            assert not ground.tree.root.exists(CHANGE), number
            seen += 1
    assert seen > 8


def test_after_a_reboot_the_driver_is_made_to_fit(top: Path) -> None:
    """An initramfs loaded the driver as it was: with the new drop-in in place it is loaded anew."""
    start, wish = Start(ON, None), steps.Wish(OFF, Scope.BOTH)
    _, new = old_and_new(top, start, wish)
    seen = 0
    for number, ground in kills(top, start, wish):
        left = Ledger(ground.host.root, RELEASE).load()
        if left is not None and left.ended < len(left.todo.steps) and ground.state().dropin == new.dropin:
            ground.tree.write(BOOT_ID, "second\n")
            away(ground.tree)
            insert(ground.tree, "kvm_amd", {"nested": "1"})
            ground.heal()
            assert ground.state() == new, number
            seen += 1
    assert seen > 5


def test_after_a_reboot_a_guest_may_be_there_first(top: Path) -> None:
    """An initramfs loaded the driver as it was, a guest runs: what cannot be had now is put back."""
    start, wish = Start(ON, None), steps.Wish(OFF, Scope.BOTH)
    seen = 0
    for number, ground in kills(top, start, wish):
        left = Ledger(ground.host.root, RELEASE).load()
        if left is not None and left.ended == len(left.todo.steps):
            continue  # it was done
        ground.tree.write(BOOT_ID, "second\n")
        away(ground.tree)
        insert(ground.tree, "kvm_amd", {"nested": "1"})
        ground.tree.write("/sys/module/kvm_amd/refcnt", "1\n")
        ledger = ground.heal()
        assert (ground.state().dropin, ground.state().switch) == (None, "1"), number
        ground.tree.write("/sys/module/kvm_amd/refcnt", "0\n")
        assert_settled(ground, ledger, number)
        seen += 1
    assert seen > 10
