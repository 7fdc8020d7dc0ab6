# SPDX-License-Identifier: LGPL-2.1-or-later
"""Launching, against a bus, a fake systemd and a fake QEMU: all of it works, or nothing is left."""

from __future__ import annotations

import pytest

from nestd import tasks
from nestd.errors import GuestExists, InvalidArgs, LaunchFailed, NestingNotGranted
from nestd.guestmodel import GuestSpec, GuestState
from nestd.model import Extension
from tests.guests.house import House, run, until
from tests.support import loop
from tests.support.fakeqemu import Manner
from tests.support.tree import cpuinfo


def test_a_guest_runs_and_says_what_it_got() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            record = await nestd.launch(cpu="qemu64", memory=64 << 20, vcpus=2)
            assert record.state is GuestState.RUNNING
            assert record.unit == "nestd-guest-demo.service"
            assert (record.owner, record.nesting, record.missing_flags) == (65534, True, ())
            assert (record.cpu, record.memory, record.vcpus) == ("qemu64,+svm", 64 << 20, 2)
            assert record.pid > 1
            assert record.started > 1_600_000_000_000_000
            assert record.console == "/run/nestd/guests/demo/console"
            assert nestd.registry.records == (record,)
            assert nestd.story() == [("added", "running", "")]
            assert (house.top / "run/nestd/console/demo").read_bytes() == b"hello from the guest\r\n"
            await nestd.registry.kill("demo")

    run(scenario)


def test_a_flag_that_is_dropped_refuses_the_guest() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            with pytest.raises(NestingNotGranted, match=r"without svm.*qemu64.*dropped: svm"):
                await nestd.launch(cpu="qemu64")
            assert house.runs() == []
            assert nestd.story() == []
            record = await nestd.launch(cpu="qemu64", require_nesting=False)
            assert (record.nesting, record.missing_flags) == (False, ("svm",))
            await nestd.registry.kill("demo")

    run(scenario, Manner.DROPS_THE_FLAG)


# svm_lock is what KVM gives no guest, ht what the number of vCPUs decides, and the last two are the kernel's.
HAS = cpuinfo("AuthenticAMD", "fpu pni sse4_1 avx svm npt svm_lock ht rep_good nopl")


def test_what_this_machine_has_and_the_guest_did_not_get_is_missing() -> None:
    async def scenario(house: House) -> None:
        (house.top / "proc").mkdir()
        (house.top / "proc/cpuinfo").write_text(HAS)
        async with house.nestd() as nestd:
            assert (await nestd.launch()).missing_flags == ("svm-lock",)
            less = await nestd.launch("less", cpu="qemu64")
            assert (less.nesting, less.missing_flags) == (True, ("avx", "npt", "sse4.1", "svm-lock"))
            without = await nestd.launch("without", cpu_features=("-svm",), require_nesting=False)
            assert (without.nesting, without.missing_flags) == (False, ("npt", "svm", "svm-lock"))
            house.manner(Manner.DROPS_THE_FLAG)
            withheld = await nestd.launch("withheld", require_nesting=False)
            assert (withheld.nesting, withheld.missing_flags) == (False, ("npt", "svm", "svm-lock"))
            # `host` asks for nothing that KVM does not give: nothing was dropped.
            with pytest.raises(
                NestingNotGranted, match=r"svm: QEMU did not give it to the CPU model host\. Look"
            ):
                await nestd.launch("refused")
            for name in ("demo", "less", "without", "withheld"):
                await nestd.registry.kill(name)

    run(scenario)


def test_without_the_flags_of_this_machine_what_was_dropped_is_told(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async def scenario(house: House) -> None:
        (house.top / "proc/cpuinfo").mkdir(parents=True)
        async with house.nestd() as nestd:
            record = await nestd.launch(cpu="qemu64", require_nesting=False)
            assert (record.nesting, record.missing_flags) == (False, ("svm",))
            await nestd.registry.kill("demo")

    run(scenario, Manner.DROPS_THE_FLAG)
    assert "cannot be told: [Errno 21] Is a directory" in capfd.readouterr().err


def test_a_flag_that_was_taken_away_is_said_to_be() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            with pytest.raises(NestingNotGranted, match="Leave -svm out"):
                await nestd.launch(cpu="qemu64", cpu_features=("-svm",))

    run(scenario, Manner.DROPS_THE_FLAG)


@pytest.mark.parametrize("manner", [Manner.DIES, Manner.DIES_LATER])
def test_a_qemu_that_dies_is_quoted_harmlessly(manner: Manner) -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            with pytest.raises(LaunchFailed) as caught:
                await nestd.launch()
            assert str(caught.value).endswith("qemu-system-x86_64: [31m-kernel /nowhere: could not open it")
            assert "\x1b" not in str(caught.value)
            assert house.runs() == []
            # The name is free again, the failed unit forgotten.
            house.manner(Manner.GOOD)
            await nestd.launch()
            await nestd.registry.kill("demo")

    run(scenario, manner)


def test_without_a_journal_the_exit_status_is_told() -> None:
    async def scenario(house: House) -> None:
        (house.top / "bin/journalctl").write_text("#!/bin/sh\nexit 1\n")
        async with house.nestd() as nestd:
            with pytest.raises(LaunchFailed, match="exit status 1"):
                await nestd.launch()

    run(scenario, Manner.DIES)


def test_a_qemu_that_cannot_be_executed_is_said_to_be() -> None:
    async def scenario(house: House) -> None:
        (house.top / "bin/qemu-system-x86_64").write_text("#!/nowhere/at/all\n")
        async with house.nestd() as nestd:
            with pytest.raises(
                LaunchFailed, match=r"did not start \(failed\): systemd could not start it .*203"
            ):
                await nestd.launch()
            assert house.runs() == []

    run(scenario)


def test_a_systemd_that_refuses_is_quoted() -> None:
    async def scenario(house: House) -> None:
        for method in ("Subscribe", "StartTransientUnit"):
            async with house.nestd() as nestd:
                (house.top / f"refuse-{method}").touch()
                with pytest.raises(LaunchFailed, match=r"systemd refused to start nestd-guest-l1\.service"):
                    await nestd.launch("l1")
                (house.top / f"refuse-{method}").unlink()

    run(scenario)


def test_a_qemu_that_babbles_is_no_qemu() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            with pytest.raises(LaunchFailed, match="cannot be talked to"):
                await nestd.launch()
            assert house.runs() == []

    run(scenario, Manner.BABBLES)


def test_a_launch_that_is_cancelled_leaves_nothing() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            task = tasks.create_task(nestd.launch())
            await until((house.top / "run/nestd/guests/demo/qmp").exists)
            with pytest.raises(GuestExists):
                await nestd.launch()
            task.cancel()
            with pytest.raises(tasks.Cancelled):
                await task
            assert house.runs() == []
            assert nestd.story() == []
            house.manner(Manner.GOOD)
            await nestd.launch()
            await nestd.registry.kill("demo")

    run(scenario, Manner.SAYS_NOTHING)


def test_two_launches_of_one_name() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            both = await loop.together(nestd.launch(), nestd.launch())
            assert sorted(type(one).__name__ for one in both) == ["GuestExists", "GuestRecord"]
            with pytest.raises(GuestExists, match="demo"):
                await nestd.launch()
            await nestd.launch("other")
            kills = await loop.together(nestd.registry.kill("demo"), nestd.registry.kill("other"))
            assert kills == [None, None]

    run(scenario)


def test_a_unit_that_is_not_ours_is_left_alone() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as first, house.nestd() as second:
            record = await first.launch()
            with pytest.raises(GuestExists, match=r"nestd-guest-demo\.service"):
                await second.launch()
            assert first.registry.get("demo") == record
            (house.top / "refuse-GetAll").touch()  # nor if systemd does not say what there is
            with pytest.raises(GuestExists, match=r"nestd-guest-demo\.service"):
                await second.launch()
            (house.top / "refuse-GetAll").unlink()
            assert first.registry.get("demo") == record
            await first.registry.kill("demo")

    run(scenario)


@pytest.mark.parametrize(
    ("missing", "words"),
    [("bin/qemu-system-x86_64", "install the package"), ("dev/kvm", "no /dev/kvm")],
)
def test_what_is_missing_is_named_before_anything_starts(missing: str, words: str) -> None:
    async def scenario(house: House) -> None:
        (house.top / missing).unlink()
        async with house.nestd() as nestd:
            with pytest.raises(LaunchFailed, match=words):
                await nestd.launch()
            assert house.runs() == []

    run(scenario)


@pytest.mark.parametrize(
    ("user", "words"), [("root", "never runs as root"), ("no\x1bbody", "no account 'no.x1b")]
)
def test_accounts_that_cannot_be(user: str, words: str) -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            with pytest.raises(InvalidArgs, match=words):
                await nestd.launcher.launch(GuestSpec("demo", user), Extension.SVM)

    run(scenario)


def test_a_failed_unit_of_that_name_is_only_a_memory() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            await nestd.start_only("demo")
            await until(lambda: house.runs() == [])
            house.manner(Manner.GOOD)
            await nestd.launch()
            await nestd.registry.kill("demo")

    run(scenario, Manner.DIES)
