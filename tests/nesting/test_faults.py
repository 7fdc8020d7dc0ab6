# SPDX-License-Identifier: LGPL-2.1-or-later
"""A change killed at each moment of each plan, also by a power cut: the old state or the new one is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from nestd.model import Scope
from nestd.nesting import steps
from nestd.nesting.ledger import BOOT_ID
from nestd.nesting.store import CHANGE
from tests.nesting.ground import (
    OFF,
    ON,
    PLANS,
    SWITCH,
    Ground,
    Start,
    assert_settled,
    copy,
    counted,
    forked,
    kill_myself,
    kills,
    old_and_new,
)
from tests.nesting.kernel import insert, remove


@pytest.mark.parametrize(("start", "wish"), PLANS)
def test_killed_at_each_moment_it_is_the_old_state_or_the_new(
    top: Path, start: Start, wish: steps.Wish
) -> None:
    old, new = old_and_new(top, start, wish)
    for number, ground in kills(top, start, wish):
        journalled = ground.tree.root.exists(CHANGE)
        begun = ground.state() != old
        ledger = ground.heal()
        state = ground.state()
        # Once a step is in the journal it is gone on with; and no step is taken before it is.
        assert state == (new if journalled or begun else old), number
        assert journalled or state in (old, new), number
        assert_settled(ground, ledger, number)


@pytest.mark.parametrize(("start", "wish"), PLANS)
def test_the_power_cut_at_each_moment(top: Path, start: Start, wish: steps.Wish) -> None:
    """The next boot loads the driver as it is configured; what was given by hand is gone with the last."""
    old, new = old_and_new(top, start, wish)
    for number, ground in kills(top, start, wish):
        tree = ground.tree.write(BOOT_ID, "second\n")
        if tree.root.exists("/sys/module/kvm_amd"):
            remove(tree, "kvm_amd")
        insert(tree, "kvm_amd", {})
        booted = ground.state()
        ledger = ground.heal()
        state = ground.state()
        if wish.scope.boot:
            assert state.dropin in (old.dropin, new.dropin), number
            changed = state.dropin == new.dropin != old.dropin
            assert state.switch == (SWITCH[wish.nested or ON] if changed else booted.switch), number
        else:
            assert state == booted, number
        assert dict(state.parameters or ())["npt"] == "Y", number
        assert_settled(ground, ledger, number)


TWICE = [
    (Start(ON, None, by_hand=True), steps.Wish(OFF, Scope.BOTH)),
    (Start(OFF, OFF), steps.Wish(ON, Scope.BOTH)),
    (Start(OFF, ON), steps.Wish(ON, Scope.RUNTIME)),
]


@pytest.mark.parametrize(("start", "wish"), TWICE)
@pytest.mark.parametrize("rebooted", [False, True])
def test_killed_while_it_heals(top: Path, start: Start, wish: steps.Wish, rebooted: bool) -> None:
    """At each moment of the healing, for every third of the change."""
    for number, ground in kills(top, start, wish):
        if number % 3 == 0:
            if rebooted:
                ground.tree.write(BOOT_ID, "second\n")
            once = copy(ground.tree, top / "once")
            Ground.of(once).heal()
            expected = Ground.of(once).state()
            for again in range(1000):
                tree = copy(ground.tree, top / "again")
                if not forked(Ground.of(tree, counted(kill_myself, again)).heal):
                    break
                ledger = Ground.of(tree).heal()
                assert Ground.of(tree).state() == expected, (number, again)
                assert_settled(Ground.of(tree), ledger, 1)
