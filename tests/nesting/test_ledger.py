# SPDX-License-Identifier: LGPL-2.1-or-later
"""What could not be undone stays in the ledger until it is settled; what is no record is set aside."""

from __future__ import annotations

from pathlib import Path

import pytest

from nestd import errors
from nestd.model import Scope, Verdict
from nestd.nesting import change, plan, steps
from nestd.nesting.heal import check
from nestd.nesting.ledger import BOOT_ID, Ledger
from nestd.nesting.store import CHANGE
from tests.nesting.ground import OFF, ON, Ground, Start, assert_settled, build
from tests.nesting.kernel import insert, remove
from tests.support import loop
from tests.support.tree import RELEASE


def stuck(ground: Ground) -> Ledger:
    """A change that failed, and whose undoing failed: the driver was taken into use in between."""
    ledger = Ledger(ground.host.root, RELEASE)
    todo = loop.run(plan.make(ground.host, ground.read(), steps.Wish(OFF, Scope.BOTH), ()))

    def come(moment: str) -> None:
        if moment == "after rmmod":
            insert(ground.tree, "kvm_amd", {"nested": "0", "npt": "Y"})
            ground.tree.write("/sys/module/kvm_amd/refcnt", "1\n")

    used = Ground.of(ground.tree, come)
    with pytest.raises(errors.RollbackFailed):
        loop.run(change.carry_out(used.host, ledger, todo, used.read))
    return ledger


def test_what_is_stuck_is_settled_by_the_next_change(top: Path) -> None:
    ground = Ground.of(build(top / "tree", Start(ON, None, by_hand=True)))
    ledger = stuck(ground)
    assert check(ground.host, ledger, "").verdict is Verdict.FAIL
    # One that fails settles nothing.
    ground.tree.write("/sys/module/kvm_amd/refcnt", "0\n")
    todo = loop.run(plan.make(ground.host, ground.read(), steps.Wish(ON, Scope.BOTH), ()))
    ground.tree.write("/sys/module/kvm_amd/refcnt", "1\n")
    with pytest.raises(errors.InUse):
        loop.run(change.carry_out(ground.host, ledger, todo, ground.read))
    assert check(ground.host, ledger, "").verdict is Verdict.FAIL
    assert ground.tree.root.exists(CHANGE)
    ground.tree.write("/sys/module/kvm_amd/refcnt", "0\n")
    loop.run(change.carry_out(ground.host, ledger, todo, ground.read))
    assert_settled(ground, ledger)


def test_what_is_stuck_is_settled_when_it_is_in_order_again(top: Path) -> None:
    ground = Ground.of(build(top / "tree", Start(ON, None, by_hand=True)))
    ledger = stuck(ground)
    ground.tree.write("/sys/module/kvm_amd/refcnt", "0\n")
    remove(ground.tree, "kvm_amd")
    insert(ground.tree, "kvm_amd", {"nested": "1", "npt": "N"})
    assert check(ground.host, ledger, "").verdict is Verdict.PASS
    assert_settled(ground, ledger)


def test_what_is_stuck_is_settled_by_a_reboot(top: Path) -> None:
    ground = Ground.of(build(top / "tree", Start(ON, None, by_hand=True)))
    stuck(ground)
    ground.tree.write(BOOT_ID, "second\n")
    ground.tree.write("/sys/module/kvm_amd/refcnt", "0\n")
    remove(ground.tree, "kvm_amd")
    insert(ground.tree, "kvm_amd", {})
    assert_settled(ground, ground.heal())


def record(steps: str = "[]", begun: int = 0) -> str:
    """What a ledger would have written."""
    return (
        f'{{"boot": "first", "nested": "on", "scope": "both", "steps": {steps}, "begun": {begun}, "ended": 0,'
        ' "phase": "doing", "trouble": [], "earlier": null}'
    )


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", "null", '{"boot": 1}', "\x00\xff", "[" * 100_000,
        record(begun=3), record('[{"step": "rm"}]'), record("[null]"),
        record('[{"step": "load", "driver": "vfat", "nested": "on", "keep": {}}]'),
        record('[{"step": "load", "driver": "kvm_amd", "nested": "on", "keep": {"npt": 1}}]'),
        record('[{"step": "unload", "driver": "kvm_amd", "before": "maybe", "keep": {}}]'),
    ],
)  # fmt: skip
def test_a_record_that_is_none_is_set_aside(top: Path, text: str) -> None:
    ground = Ground.of(build(top / "tree", Start(ON, None)))
    old = ground.state()
    ground.tree.write(CHANGE, text)
    ledger = ground.heal()
    assert ground.state() == old
    row = check(ground.host, ledger, "")
    assert row.verdict is Verdict.WARN and f"{CHANGE}.broken" in row.message
    ground.tree.gone(f"{CHANGE}.broken")
    assert_settled(ground, ledger)
