# SPDX-License-Identifier: LGPL-2.1-or-later
"""Verify against a bus, a fake systemd and a fake QEMU; what the guest would say is put into its console."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from nestd import tasks
from nestd.errors import LaunchFailed
from nestd.guestmodel import GuestRecord, GuestSpec
from nestd.guests.launch import Launcher
from nestd.guests.probe.image import Image
from nestd.guests.verify import Request, Verified, Verifier
from nestd.model import Extension
from tests.guests.house import House, Nestd, run, until
from tests.guests.probe.test_verdict import CREATED, FLAGS, PANIC, WHOLE
from tests.support.fakeqemu import Manner

IMAGE = Image("/boot/vmlinuz", "/run/nestd/probe/x.cpio.gz")
REQUEST = Request("guestling")


class Speaking:
    """A launcher whose guests say something, in a machine whose /proc leads to their console's log."""

    def __init__(self, top: Path, launcher: Launcher, words: str) -> None:
        self._top = top
        self._launcher = launcher
        self._words = words
        self.spec = GuestSpec("", "")

    async def launch(self, spec: GuestSpec, extension: Extension) -> GuestRecord:
        self.spec = spec
        record = await self._launcher.launch(spec, extension)
        proc = self._top / f"proc/{record.pid}"
        proc.mkdir(parents=True)
        (proc / "root").symlink_to(self._top)
        with (self._top / f"run/nestd/console/{spec.name}").open("a") as console:
            console.write(self._words.replace("\n", "\r\n"))
        return record


@asynccontextmanager
async def speaking(house: House, words: str) -> AsyncIterator[tuple[Nestd, Speaking, Verifier]]:
    async with house.nestd() as nestd:
        launcher = Speaking(house.top, nestd.launcher, words)
        yield nestd, launcher, Verifier(launcher, nestd.registry)
        assert nestd.registry.records == () and house.runs() == []


async def verified(house: House, words: str, request: Request = REQUEST) -> Verified:
    async with speaking(house, words) as (_, _, verifier):
        return await verifier.verify(IMAGE, request, Extension.SVM)


def test_a_guest_that_tells_all_is_believed_and_gone() -> None:
    async def scenario(house: House) -> None:
        async with speaking(house, WHOLE) as (nestd, launcher, verifier):
            found = await verifier.verify(IMAGE, Request("guestling", "EPYC", ("-x2apic",)), Extension.SVM)
            assert (found.verdict.level, found.verdict.ran) == ("", True)
            assert found.cpu == "EPYC,+svm,-x2apic" and found.missing == ()
            assert 0 < found.booted <= found.seconds
            spec = launcher.spec
            assert spec.name.startswith("verify-") and not spec.require_nesting and spec.vcpus == 1
            assert (spec.user, spec.kernel, spec.initrd) == ("guestling", IMAGE.kernel, IMAGE.initrd)
            assert nestd.story()[0][0] == "added" and nestd.story()[-1] == ("exited", "exited", "success")

    run(scenario)


def test_a_kernel_that_was_lent_is_taken_back_once_qemu_has_it() -> None:
    async def scenario(house: House) -> None:
        for manner in (Manner.GOOD, Manner.DIES):
            house.manner(manner)
            lent = house.top / "lent"
            lent.touch()
            async with speaking(house, WHOLE) as (_, _, verifier):
                with suppress(LaunchFailed):
                    await verifier.verify(Image(str(lent), IMAGE.initrd, lent=True), REQUEST, Extension.SVM)
            assert not lent.exists()

    run(scenario)


def test_flags_that_qemu_did_not_grant_are_told() -> None:
    async def scenario(house: House) -> None:
        found = await verified(house, FLAGS.replace("true", "false"), Request("guestling", limit=0.5))
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
        async with speaking(house, CREATED) as (nestd, _, verifier):
            waiting = tasks.create_task(verifier.verify(IMAGE, REQUEST, Extension.SVM))
            await until(lambda: nestd.registry.records != ())
            await nestd.registry.kill(nestd.registry.records[0].name)
            seen = (await waiting).verdict
            assert (seen.level, seen.vm_created) == ("L2", True) and "QEMU ended" in seen.why

    run(scenario)


def test_a_caller_who_leaves_leaves_no_guest() -> None:
    async def scenario(house: House) -> None:
        async with speaking(house, CREATED) as (nestd, _, verifier):
            waiting = tasks.create_task(verifier.verify(IMAGE, REQUEST, Extension.SVM))
            await until(lambda: nestd.registry.records != ())
            waiting.cancel()
            with pytest.raises(tasks.Cancelled):
                await waiting

    run(scenario)


def test_a_guest_that_does_not_start_is_an_error() -> None:
    async def scenario(house: House) -> None:
        with pytest.raises(LaunchFailed):
            await verified(house, "")

    run(scenario, Manner.DIES)
