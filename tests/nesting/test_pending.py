# SPDX-License-Identifier: LGPL-2.1-or-later
"""What waits for the driver to become idle: kept, visible, cancelled, done, or failed aloud."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from nestd import errors, tasks
from nestd.model import Nesting, Scope, Verdict, Waiting
from nestd.nesting import dropin
from nestd.nesting.steps import Wish
from tests.nesting.kept import ALICE, NOTE, RECORD, REFCNT, Kept, hold, kept, machine, release, until
from tests.nesting.machines import Machine
from tests.support import loop

ON, OFF = Nesting.ON, Nesting.OFF
BOTH, RUNTIME, BOOT = Scope.BOTH, Scope.RUNTIME, Scope.BOOT
PID = os.getpid()
STEPS = (
    f"write {dropin.PATH}: options kvm_amd nested=0",
    "unload kvm_amd",
    "load kvm_amd with nested=0",
)


@pytest.fixture
def held(tmp_path: Path) -> Machine:
    """A machine with nesting on, and this process holds the driver."""
    found = machine(tmp_path)
    hold(found, PID)
    return found


async def ask(life: Kept, scope: Scope = BOTH) -> None:
    """For nesting off."""
    wish = Wish(OFF, scope)
    outcome = await life.pending.change(wish, False, ALICE)
    assert (outcome.pending, outcome.changed) == (True, False)


def verdict(life: Kept) -> tuple[Verdict, str]:
    [check] = life.pending.checks()
    assert check.id == "pending"
    assert bool(check.remedy) == (check.verdict is not Verdict.PASS)
    return check.verdict, check.message


def test_it_waits_and_is_done_when_the_last_holder_goes(held: Machine) -> None:
    async def main() -> None:
        async with kept(held) as life:
            assert verdict(life)[0] is Verdict.PASS
            outcome = await life.pending.change(Wish(OFF, BOTH), False, ALICE)
            assert (outcome.pending, outcome.changed, outcome.steps) == (True, False, STEPS)
            assert life.pending.waiting == Waiting(OFF, BOTH, ALICE)
            assert life.pending.wish == Wish(OFF, BOTH)
            assert json.loads(held.tree.read(RECORD))["uid"] == ALICE
            assert held.tree.path(RECORD).stat().st_mode & 0o777 == 0o600
            found, text = verdict(life)
            assert found is Verdict.WARN
            assert text == (
                "Nesting is to be turned off (both) as soon as nobody uses the driver; "
                f"user {ALICE} has asked for it."
            )
            await tasks.sleep(1.0)
            # nothing was touched, not even the file for the next boot: the whole is one transaction
            assert (life.nested, held.tools.calls(), held.host.root.exists(dropin.PATH)) == ("1", [], False)
            release(held, PID)
            await until(lambda: life.pending.waiting is None)
            assert (life.nested, life.observer.status.nested_at_boot) == ("0", OFF)
            assert life.told == ["off", ""]
            assert not held.host.root.exists(RECORD)
            assert verdict(life)[0] is Verdict.PASS

    loop.run(main())


def test_what_need_not_wait_does_not(held: Machine) -> None:
    async def main() -> None:
        async with kept(held) as life:
            assert not (await life.pending.change(Wish(ON, RUNTIME), False, ALICE)).pending
            outcome = await life.pending.change(Wish(OFF, BOOT), False, ALICE)
            assert (outcome.pending, outcome.changed, outcome.status.nested_at_boot) == (False, True, OFF)
            release(held, PID)
            assert not (await life.pending.change(Wish(OFF, RUNTIME), False, ALICE)).pending
            assert (life.nested, life.told) == ("0", [])

    loop.run(main())


def test_a_dry_run_tells_and_does_nothing(held: Machine) -> None:
    async def main() -> None:
        async with kept(held) as life:
            outcome = await life.pending.change(Wish(OFF, BOTH), True, ALICE)
            assert (outcome.pending, outcome.steps) == (True, STEPS)
            release(held, PID)
            outcome = await life.pending.change(Wish(OFF, BOTH), True, ALICE)
            assert (outcome.pending, outcome.steps) == (False, STEPS)
            assert (life.pending.waiting, life.told) == (None, [])

    loop.run(main())


def test_what_will_be_refused_is_refused_at_once(held: Machine) -> None:
    held.tree.dropin("zzz.conf", "options kvm_amd nested=1\n")

    async def main() -> None:
        async with kept(held) as life:
            for dry_run in (True, False):
                with pytest.raises(errors.Overridden, match=r"zzz\.conf"):
                    await life.pending.change(Wish(OFF, BOTH), dry_run, ALICE)
            assert life.pending.waiting is None

    loop.run(main())


def test_another_takes_its_place(held: Machine) -> None:
    async def main() -> None:
        async with kept(held) as life:
            await ask(life)
            await ask(life, RUNTIME)
            assert life.pending.waiting == Waiting(OFF, RUNTIME, ALICE)
            release(held, PID)
            await until(lambda: life.pending.waiting is None)
            assert (life.nested, held.host.root.exists(dropin.PATH)) == ("0", False)

    loop.run(main())


@pytest.mark.parametrize("wish", [Wish(ON, RUNTIME), Wish(ON, BOOT)], ids=["already so", "done at once"])
def test_a_change_that_succeeds_makes_it_void(held: Machine, wish: Wish) -> None:
    async def main() -> None:
        async with kept(held) as life:
            await ask(life)
            await life.changer.change(wish, False)
            assert (life.pending.waiting, life.told) == (None, ["off", ""])
            assert not held.host.root.exists(RECORD)
            release(held, PID)
            await tasks.sleep(1.0)
            assert life.nested == "1"

    loop.run(main())


def test_it_is_cancelled(held: Machine) -> None:
    async def main() -> None:
        async with kept(held) as life:
            life.pending.cancel(None, 0)  # nothing is fine
            await ask(life)
            with pytest.raises(errors.Busy, match="Another change waits now"):
                life.pending.cancel(None, 0)
            life.pending.cancel(life.pending.waiting, 0)
            assert (life.pending.waiting, life.told) == (None, ["off", ""])
            assert not held.host.root.exists(RECORD)
            release(held, PID)
            await tasks.sleep(1.0)
            assert (life.nested, held.tools.calls()) == ("1", [])

    loop.run(main())


def test_too_late_to_cancel(held: Machine) -> None:
    held.tools.fail("rmmod", "kvm_amd", hang=1.0)

    async def main() -> None:
        async with kept(held) as life:
            await ask(life)
            release(held, PID)
            await until(lambda: bool(held.tools.calls()))
            with pytest.raises(errors.Busy, match="just now"):
                life.pending.cancel(life.pending.waiting, 0)
            # and who asks for another change is told what runs
            with pytest.raises(errors.Busy, match="nesting off"):
                await life.changer.change(Wish(ON, BOTH), False)
            await until(lambda: life.pending.waiting is None)
            assert life.nested == "0"

    loop.run(main())


def test_it_waits_for_the_end_of_another_change(held: Machine) -> None:
    """The driver falls idle while the drop-in is being written, so to speak."""
    held.tools.fail("rmmod", "kvm_amd", hang=1.5, code=1, words="ERROR: slow, and no")

    async def main() -> None:
        async with kept(held) as life:
            release(held, PID)
            slow = tasks.create_task(life.changer.change(Wish(OFF, RUNTIME), False))
            await until(lambda: bool(held.tools.calls()))
            held.tree.write(RECORD, json.dumps(Waiting(OFF, BOTH, ALICE)._asdict()))
            held.tree.path(RECORD).chmod(0o600)
            life.pending.restore()
            life.pending.take_up()
            await tasks.sleep(0.5)
            assert not slow.done() and life.pending.waiting
            await tasks.wait({slow})
            assert isinstance(slow.exception(), errors.ReloadFailed)
            await until(lambda: life.pending.waiting is None)
            assert (life.nested, held.host.root.exists(dropin.PATH)) == ("0", True)

    loop.run(main())


def test_it_outlives_the_daemon(held: Machine) -> None:
    async def first() -> None:
        async with kept(held) as life:
            await ask(life)

    async def second() -> None:
        async with kept(held) as life:
            assert life.pending.waiting == Waiting(OFF, BOTH, ALICE)
            assert life.told == []
            release(held, PID)
            await until(lambda: life.pending.waiting is None)
            assert life.nested == "0"

    loop.run(first())
    loop.run(second())


def test_after_a_reboot_it_is_done_at_once(held: Machine) -> None:
    async def first() -> None:
        async with kept(held) as life:
            await ask(life)

    async def second() -> None:
        async with kept(held) as life:
            await until(lambda: life.pending.waiting is None)
            assert life.nested == "0"

    loop.run(first())
    held.tree.gone(f"/proc/{PID}").write(REFCNT, "0\n")
    loop.run(second())


def test_it_fails_aloud_and_once(held: Machine) -> None:
    async def first() -> None:
        async with kept(held) as life:
            await ask(life)
            held.tools.fail("rmmod", "kvm_amd", code=1, words="ERROR: Module kvm_amd is wedged")
            release(held, PID)
            await until(lambda: life.pending.waiting is None)
            assert (life.nested, life.told) == ("1", ["off", ""])
            found, text = verdict(life)
            assert found is Verdict.FAIL and "is wedged" in text and f"User {ALICE}" in text
            await tasks.sleep(1.0)
            assert [call[0] for call in held.tools.calls()] == ["rmmod"]

    async def second() -> None:
        async with kept(held) as life:
            assert verdict(life)[0] is Verdict.FAIL
            await tasks.sleep(1.0)
            assert life.nested == "1"
            life.pending.cancel(None, 0)
            assert verdict(life)[0] is Verdict.PASS
            assert not held.host.root.exists(RECORD)

    loop.run(first())
    loop.run(second())


def test_what_cannot_be_kept_does_not_wait(held: Machine) -> None:
    held.tree.path(RECORD).symlink_to("/nowhere")

    async def main() -> None:
        async with kept(held) as life:
            with pytest.raises(errors.Failed, match=r"symbolic link.*does not wait"):
                await life.pending.change(Wish(OFF, BOTH), False, ALICE)
            assert (life.pending.waiting, life.told) == (None, [])

    loop.run(main())


def test_what_cannot_be_forgotten_still_waits(held: Machine) -> None:
    async def main() -> None:
        async with kept(held) as life:
            await ask(life)
            held.tree.gone(RECORD).path(RECORD).mkdir()
            with pytest.raises(errors.Failed, match=f"{RECORD}.*still waits"):
                life.pending.cancel(life.pending.waiting, 0)
            assert life.pending.waiting

    loop.run(main())


GOOD = {"nested": "off", "scope": "both", "uid": 0, "failure": ""}


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "7", "{}", '"off"', "\udcff\0", "[" * 100_000,
        *(json.dumps({**GOOD, **wrong}) for wrong in (
            {"nested": "unsupported"}, {"nested": 1}, {"scope": "all"}, {"scope": None}, {"uid": "root"},
            {"uid": None}, {"uid": -1}, {"uid": 1 << 32}, {"failure": 3},
        )),
        *(json.dumps({name: value for name, value in GOOD.items() if name != left}) for left in GOOD),
    ],
)  # fmt: skip
def test_a_record_that_makes_no_sense_is_set_aside(held: Machine, text: str) -> None:
    held.tree.write(RECORD, text).path(RECORD).chmod(0o600)

    async def main() -> None:
        async with kept(held) as life:
            assert life.pending.waiting is None
            await ask(life)

    loop.run(main())
    assert held.tree.read(f"{RECORD}.broken") == text


def test_a_stranger_s_record_is_not_believed(held: Machine) -> None:
    held.tree.write(RECORD, json.dumps(GOOD)).path(RECORD).chmod(0o666)
    held.tree.gone(f"/proc/{PID}").write(REFCNT, "0\n")

    async def main() -> None:
        async with kept(held) as life:
            await tasks.sleep(1.0)
            assert (life.pending.waiting, life.nested) == (None, "1")

    loop.run(main())


def test_the_note_of_this_boot(held: Machine) -> None:
    """What waited is kept like any other change."""

    async def main() -> None:
        async with kept(held) as life:
            await ask(life, RUNTIME)
            release(held, PID)
            await until(lambda: life.pending.waiting is None)
            assert json.loads(held.tree.read(NOTE)) == {"nested": "off"}

    loop.run(main())
