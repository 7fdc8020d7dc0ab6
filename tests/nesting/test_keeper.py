# SPDX-License-Identifier: LGPL-2.1-or-later
"""What was told is kept, or it is said that it is not; and nobody is fought."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from nestd import errors, tasks
from nestd.model import Drift, Nesting, Scope, Verdict
from nestd.nesting import dropin
from nestd.nesting.steps import Wish
from tests.nesting.kept import ALICE, NOTE, Kept, hold, kept, machine, release, until
from tests.nesting.machines import Machine
from tests.support import loop
from tests.support.tree import Tree

ON, OFF = Nesting.ON, Nesting.OFF
BOTH, RUNTIME, BOOT = Scope.BOTH, Scope.RUNTIME, Scope.BOOT
PID = os.getpid()


@pytest.fixture
def amd(tmp_path: Path) -> Machine:
    return machine(tmp_path)


def verdict(life: Kept) -> Verdict:
    [check] = life.keeper.checks()
    assert check.id == "drift"
    assert bool(check.remedy) == (check.verdict is not Verdict.PASS)
    return check.verdict


async def change(life: Kept, nested: Nesting, scope: Scope) -> None:
    await life.changer.change(Wish(nested, scope), False)


def test_nobody_told_anything(amd: Machine) -> None:
    async def main() -> None:
        async with kept(amd) as life:
            life.by_hand("nested=0")
            life.by_hand()
            assert life.told == []
            assert verdict(life) is Verdict.PASS

    loop.run(main())


def test_other_arguments_by_hand(amd: Machine) -> None:
    async def main() -> None:
        async with kept(amd) as life:
            await change(life, OFF, BOTH)
            assert life.told == []  # our own change is none
            life.by_hand("nested=1")
            assert life.told == [Drift(OFF, ON, "the driver was loaded anew with other arguments")]
            assert verdict(life) is Verdict.WARN
            life.event()
            life.by_hand("nested=1", "avic=Y")
            assert len(life.told) == 2  # it had gone between the two
            life.by_hand()
            assert verdict(life) is Verdict.PASS
            await change(life, ON, BOTH)
            assert len(life.told) == 2

    loop.run(main())


def test_the_configuration_says_otherwise(amd: Machine) -> None:
    async def main() -> None:
        async with kept(amd) as life:
            await change(life, OFF, RUNTIME)
            assert json.loads(amd.tree.read(NOTE)) == {"nested": "off"}
            life.by_hand()
            cause = "the driver was loaded anew, and kernel default gives on"
            assert life.told == [Drift(OFF, ON, cause)]

    loop.run(main())


def test_the_drop_in_was_beaten_at_boot(amd: Machine) -> None:
    """Found at the start: the drop-in was written, and the kernel command line won."""
    amd.tree.write(dropin.PATH, "options kvm_amd nested=0\n").cmdline("kvm_amd.nested=1")

    async def main() -> None:
        async with kept(amd) as life:
            assert life.drifts() == [("off", "on")]
            assert "kernel command line gives on" in life.keeper.checks()[0].message

    loop.run(main())


def test_an_unloaded_driver_is_no_drift(amd: Machine) -> None:
    async def main() -> None:
        async with kept(amd) as life:
            await change(life, ON, BOTH)
            life.tool("rmmod")
            assert life.told == []

    loop.run(main())


def test_what_only_a_reboot_settles_is_no_drift(tmp_path: Path) -> None:
    tree = Tree(tmp_path).amd().builtin("kvm").builtin("kvm_amd", nested="0")
    found = Machine.of(tree)

    async def main() -> None:
        async with kept(found) as life:
            tree.write(dropin.PATH, "options kvm_amd nested=1\n")
            life.event()
            assert life.observer.status.reboot_required
            assert life.told == []

    loop.run(main())


def test_boot_alone_leaves_this_boot_as_it_was(amd: Machine) -> None:
    async def unmanaged() -> None:
        async with kept(amd) as life:
            await change(life, OFF, BOOT)
            assert (life.nested, life.told) == ("1", [])
            life.by_hand("nested=0")
            life.by_hand("nested=1")
            assert life.told == []
            await change(life, OFF, BOTH)
            await change(life, ON, BOOT)  # for this boot off is still what was told
            assert life.told == []

    async def restarted() -> None:
        async with kept(amd) as life:
            assert life.told == []
            life.by_hand()
            assert life.drifts() == [("off", "on")]

    loop.run(unmanaged())
    loop.run(restarted())
    amd.tree.gone(NOTE)  # a reboot
    loop.run(rebooted(amd))


async def rebooted(amd: Machine) -> None:
    async with kept(amd) as life:
        assert life.told == []
        life.by_hand("nested=0")
        assert life.drifts() == [("on", "off")]


def test_to_take_the_drop_in_away_is_to_have_it_forgotten(amd: Machine) -> None:
    async def main() -> None:
        async with kept(amd) as life:
            await change(life, OFF, RUNTIME)
            await change(life, OFF, BOTH)
            assert not amd.host.root.exists(NOTE)
            amd.tree.gone(dropin.PATH)
            life.by_hand()
            assert life.told == []

    loop.run(main())


def test_a_change_under_way_is_no_drift_and_its_failure_is_looked_at(amd: Machine) -> None:
    async def main() -> None:
        async with kept(amd) as life:
            await change(life, OFF, BOTH)
            # rmmod works, and neither the load nor the load that is to undo it does what it says.
            for _ in range(8):
                amd.tools.fail("modprobe", "kvm_amd", code=1, words="ERROR: no")
            with pytest.raises(errors.RollbackFailed):
                await change(life, ON, RUNTIME)
            assert life.told == []
            amd.tree.gone("/.kernel/failures")
            life.tool("modprobe", "nested=1")
            assert life.drifts() == [("off", "on")]

    loop.run(main())


@pytest.mark.parametrize("text", ["{", "{}", '{"nested": "unsupported"}', '{"nested": 1}', "[]"])
def test_a_note_that_makes_no_sense_is_set_aside(amd: Machine, text: str) -> None:
    amd.tree.write(NOTE, text).path(NOTE).chmod(0o600)

    async def main() -> None:
        async with kept(amd) as life:
            life.by_hand("nested=0")
            assert life.told == []

    loop.run(main())
    assert amd.tree.read(f"{NOTE}.broken") == text


def test_it_is_put_back_when_nobody_uses_the_driver(amd: Machine) -> None:
    async def main() -> None:
        async with kept(amd, enforce=True) as life:
            await change(life, OFF, BOTH)
            life.by_hand("nested=1")
            hold(amd, PID)
            await tasks.sleep(2.0)
            assert life.nested == "1"
            assert "as soon as nobody uses" in life.keeper.checks()[0].remedy
            release(amd, PID)
            await until(lambda: life.nested == "0" and not life.changer.busy)
            assert verdict(life) is Verdict.PASS
            assert not amd.host.root.exists(NOTE)  # it is the drop-in that says so, as before

    loop.run(main())


def test_a_change_that_waits_comes_first(amd: Machine) -> None:
    async def main() -> None:
        async with kept(amd, enforce=True) as life:
            await change(life, OFF, RUNTIME)
            life.by_hand("nested=1")
            hold(amd, PID)
            await tasks.sleep(1.5)
            await life.pending.change(Wish(OFF, BOTH), False, ALICE)
            release(amd, PID)
            await until(lambda: life.pending.waiting is None)
            assert (life.nested, life.observer.status.nested_at_boot) == ("0", OFF)
            assert sum(call[0] == "rmmod" for call in amd.tools.calls()) == 3

    loop.run(main())


def test_it_does_not_fight(amd: Machine) -> None:
    async def main() -> None:
        async with kept(amd, enforce=True, delay=0.01) as life:
            await change(life, OFF, BOTH)
            for _ in range(5):
                life.by_hand("nested=1")
                await until(lambda: life.nested == "0" and not life.changer.busy)
            life.by_hand("nested=1")
            assert verdict(life) is Verdict.FAIL
            await tasks.sleep(2.0)
            assert life.nested == "1"
            assert life.drifts() == [("off", "on")] * 6
            # told anew, it begins anew
            await change(life, OFF, RUNTIME)
            life.by_hand("nested=1")
            assert verdict(life) is Verdict.WARN
            await until(lambda: life.nested == "0" and not life.changer.busy)

    loop.run(main())


def test_what_cannot_be_put_back_is_given_up_too(amd: Machine) -> None:
    amd.tools.fail("rmmod", "kvm_amd", code=1, words="ERROR: wedged")

    async def main() -> None:
        async with kept(amd, enforce=True, delay=0.01) as life:
            with pytest.raises(errors.ReloadFailed):
                await change(life, OFF, BOTH)
            assert life.told == []
            await change(life, ON, RUNTIME)
            life.by_hand("nested=0")
            for _ in range(5):
                amd.tools.fail("rmmod", "kvm_amd", code=1, words="ERROR: wedged")
            await until(lambda: verdict(life) is Verdict.FAIL)
            assert (life.nested, life.drifts()) == ("0", [("on", "off")])

    loop.run(main())
