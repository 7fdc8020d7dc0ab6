# SPDX-License-Identifier: LGPL-2.1-or-later
"""Verify against a bus, a fake systemd and a fake QEMU; what the guest would say is put into its console."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from nestd import tasks
from nestd.errors import LaunchFailed, VerifyFailed
from nestd.guestmodel import GuestSpec
from nestd.guests import places
from nestd.guests.launch import Launcher, Started
from nestd.guests.probe.image import Image
from nestd.guests.verify import Request, Verified, Verifier
from nestd.host.root import Root
from nestd.model import Extension, Nesting
from tests.guests.house import House, Nestd, run, until
from tests.guests.probe.test_verdict import CREATED, FLAGS, PANIC, WHOLE
from tests.support.fakeqemu import Manner

# Of which the fake QEMU does not know what it would say.
IMAGE = Image("/boot/vmlinuz", "/srv/x.cpio.gz")
REQUEST = Request("guestling")


class Speaking:
    """A launcher whose guests say something more than the fake QEMU has them say."""

    def __init__(self, top: Path, launcher: Launcher, words: str) -> None:
        self._top = top
        self._launcher = launcher
        self._words = words
        self.spec = GuestSpec("", "")
        self.pid = 0
        self.kept = False

    async def start(self, spec: GuestSpec, extension: Extension) -> Started:
        self.spec = spec
        started = await self._launcher.start(spec, extension)
        with (self._top / f"run/nestd/console/{spec.name}").open("a") as console:
            console.write(self._words.replace("\n", "\r\n"))
        self.pid = started.record.pid
        if self.kept:
            (self._top / f"run/nestd/console/{spec.name}").unlink()
        return started

    async def end(self, started: Started) -> None:
        await self._launcher.end(started)


@asynccontextmanager
async def speaking(house: House, words: str) -> AsyncIterator[tuple[Nestd, Speaking, Verifier]]:
    async with house.nestd() as nestd:
        launcher = Speaking(house.top, nestd.launcher, words)
        yield nestd, launcher, Verifier(Root(str(house.top)), launcher)
        # Nobody was told of it, and nothing of it is left.
        assert (nestd.told, nestd.registry.records, house.runs()) == ([], (), [])


async def verified(house: House, words: str, request: Request = REQUEST) -> Verified:
    async with speaking(house, words) as (_, _, verifier):
        return await verifier.verify(IMAGE, request, Extension.SVM, Nesting.ON)


def test_a_guest_that_tells_all_is_believed_and_gone() -> None:
    async def scenario(house: House) -> None:
        async with speaking(house, WHOLE) as (_, launcher, verifier):
            found = await verifier.verify(
                IMAGE, Request("guestling", "EPYC", ("-x2apic",)), Extension.SVM, Nesting.ON
            )
            assert (found.verdict.level, found.verdict.ran) == ("", True)
            assert found.cpu == "EPYC,+svm,-x2apic" and found.missing == ()
            assert 0 < found.booted <= found.seconds
            spec = launcher.spec
            assert spec.name.startswith("_verify-") and not spec.require_nesting and spec.vcpus == 1
            assert spec.lifetime == 240
            assert (spec.user, spec.kernel, spec.initrd) == ("guestling", IMAGE.kernel, IMAGE.initrd)

    run(scenario)


def test_a_kernel_that_was_lent_is_taken_back_once_qemu_has_it() -> None:
    async def scenario(house: House) -> None:
        for manner in (Manner.GOOD, Manner.DIES):
            house.manner(manner)
            lent = house.top / "lent"
            lent.touch()
            async with speaking(house, WHOLE) as (_, _, verifier):
                with suppress(LaunchFailed):
                    await verifier.verify(
                        Image(str(lent), IMAGE.initrd, lent=True), REQUEST, Extension.SVM, Nesting.ON
                    )
            assert not lent.exists()

    run(scenario)


def test_flags_that_qemu_did_not_grant_are_told() -> None:
    async def scenario(house: House) -> None:
        found = await verified(house, FLAGS.replace("true", "false"), Request("guestling", "EPYC", limit=0.5))
        assert found.missing == ("svm",) and not found.verdict.extension

    run(scenario, Manner.DROPS_THE_FLAG)


@pytest.mark.parametrize(
    ("words", "level", "why"),
    [
        ("", "L1", "did not boot: 0.5 s were over. The last that it said: hello from the guest"),
        (CREATED, "L2", "0.5 s were over when it was to run: L2 does not come back"),
    ],
)
def test_a_guest_that_hangs_is_given_up(words: str, level: str, why: str) -> None:
    async def scenario(house: House) -> None:
        seen = (await verified(house, words, Request("guestling", limit=0.5))).verdict
        assert seen.level == level and why in seen.why

    run(scenario)


def test_a_panic_is_not_waited_out() -> None:
    async def scenario(house: House) -> None:
        seen = (await verified(house, PANIC)).verdict
        assert "its kernel panicked (Kernel panic - not syncing: VFS: [1mno root)" in seen.why

    run(scenario)


def test_a_guest_that_ends_is_noticed() -> None:
    async def scenario(house: House) -> None:
        async with speaking(house, CREATED) as (_, launcher, verifier):
            waiting = tasks.create_task(verifier.verify(IMAGE, REQUEST, Extension.SVM, Nesting.ON))
            await until(lambda: launcher.pid != 0)
            os.kill(launcher.pid, signal.SIGKILL)
            seen = (await waiting).verdict
            assert (seen.level, seen.vm_created) == ("L2", True) and "QEMU ended" in seen.why

    run(scenario)


def test_a_caller_who_leaves_leaves_no_guest() -> None:
    async def scenario(house: House) -> None:
        async with speaking(house, CREATED) as (_, launcher, verifier):
            waiting = tasks.create_task(verifier.verify(IMAGE, REQUEST, Extension.SVM, Nesting.ON))
            await until(lambda: launcher.pid != 0)
            waiting.cancel()
            with pytest.raises(tasks.Cancelled):
                await waiting

    run(scenario)


def test_a_guest_that_does_not_start_is_an_error() -> None:
    async def scenario(house: House) -> None:
        with pytest.raises(LaunchFailed):
            await verified(house, "")

    run(scenario, Manner.DIES)


def test_the_guest_of_a_nestd_that_was_killed_is_ended_by_the_next() -> None:
    async def scenario(house: House) -> None:
        name = f"{places.OWN}verify-1a2b3c4d"
        async with house.nestd() as nestd:
            await nestd.start_only(name)
            assert house.runs() == [name]
        async with house.nestd() as nestd:
            await until(lambda: house.runs() == [])
            assert (nestd.told, nestd.registry.records) == ([], ())

    run(scenario)


def test_a_console_that_is_kept_from_nestd_is_no_verdict() -> None:
    async def scenario(house: House) -> None:
        async with speaking(house, WHOLE) as (_, launcher, _):
            launcher.kept = True
            verifier = Verifier(Root(str(house.top)), launcher, end_limit=0.1)
            with pytest.raises(VerifyFailed, match=r"cannot be listened to: The console's log of _verify-"):
                await verifier.verify(IMAGE, REQUEST, Extension.SVM, Nesting.ON)
            assert house.runs() == []

    run(scenario)
