# SPDX-License-Identifier: LGPL-2.1-or-later
"""Labs, against a bus, a fake systemd and fake QEMUs: all of it works, or nothing is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nestd import tasks
from nestd.errors import (
    AccessDenied,
    Busy,
    Failed,
    GuestExists,
    InvalidArgs,
    LabExists,
    LabNotFound,
    LaunchFailed,
    NestingNotGranted,
)
from nestd.guestmodel import Disk, GuestSpec, Network
from nestd.guests import labplaces, labstore, places
from nestd.guests.lab import LabState
from nestd.model import Extension
from tests.guests.house import NOBODY, House, run, until
from tests.guests.town import Town, town
from tests.support import loop
from tests.support.fakeqemu import Manner

BOTH = ["town-1", "town-2"]


def disks(house: House) -> dict[str, list[str]]:
    """The labs that have a folder of disks, and what is in it."""
    top = house.top / "var/lib/nestd-labs"
    return (
        {each.name: sorted(path.name for path in each.iterdir()) for each in top.iterdir()}
        if top.exists()
        else {}
    )


async def assert_nothing_left(house: House, daemon: Town) -> None:
    """No guest, segment, record or disk of any lab."""
    assert (daemon.guests(), await daemon.segments(), daemon.kept(), disks(house)) == ([], [], [], {})
    assert house.runs() == []


def image_tool(house: House) -> Path:
    """qemu-img, as far as it is asked: writes its arguments into the image that it makes."""
    program = house.top / "bin/qemu-img"
    program.write_text('#!/bin/sh\nfor last; do :; done\necho "$@" > "$last"\n')
    program.chmod(0o755)
    base = house.top / "base.raw"
    base.write_bytes(b"never written")
    return base


def test_a_lab_is_created_stopped_started_and_removed() -> None:
    async def scenario(house: House) -> None:
        base = image_tool(house)
        async with town(house) as daemon:
            given = [{"path": str(base), "format": "raw"}]
            made = await daemon.create(disks=given, kernel="/boot/k", append="ip=%a name=%n")
            assert (made.state, made.owner, made.subnet) == (LabState.RUNNING, NOBODY.uid, "10.77.0.0/24")
            assert [node.name for node in made.nodes] == [node.guest for node in made.nodes] == BOTH
            assert [node.address for node in made.nodes] == ["10.77.0.1/24", "10.77.0.2/24"]
            assert len({node.mac for node in made.nodes}) == 2
            assert daemon.guests() == BOTH
            assert {record.lab for record in daemon.registry.records} == {"town"}
            assert daemon.kept() == [("town", "")]
            assert disks(house) == {"town": ["1-0.qcow2", "2-0.qcow2"]}
            folder = house.top / "var/lib/nestd-labs/town"
            assert (folder.stat().st_uid, folder.stat().st_mode & 0o777) == (NOBODY.uid, 0o700)
            said = (folder / "2-0.qcow2").read_text()
            assert said == f"create -q -f qcow2 -F raw -b {base} {folder}/2-0.qcow2\n"
            assert base.read_bytes() == b"never written"

            (folder / "1-0.qcow2").write_text("what the node has written")
            await daemon.labs.stop("town", 10)
            assert daemon.labs.get("town").state is LabState.STOPPED
            assert (daemon.guests(), await daemon.segments()) == ([], [])
            await daemon.labs.start("town", Extension.SVM)
            assert daemon.labs.get("town").state is LabState.RUNNING
            assert (folder / "1-0.qcow2").read_text() == "what the node has written"

            await daemon.labs.remove("town")
            await assert_nothing_left(house, daemon)
            assert [what for what, _ in daemon.heard][-1] == "removed"
            with pytest.raises(LabNotFound, match="town"):
                daemon.labs.get("town")

    run(scenario)


def _read(path: str) -> str:
    return Path(path).read_text()


def _goes_to(path: str) -> str:
    return str(Path(path).readlink())


def test_each_node_gets_its_own_words_and_its_own_port() -> None:
    async def scenario(house: House) -> None:
        async with town(house) as daemon:
            await daemon.create(kernel="/boot/k", append="a=%a n=%n i=%i l=%l %%")
            for number, name in enumerate(BOTH, 1):
                pid = daemon.registry.get(name).pid
                words = _read(f"/proc/{pid}/cmdline").split("\0")
                assert f"a=10.77.0.{number} n={name} i={number} l=town %" in words
                assert "socket,id=lab.town,fd=0" in words
                assert _goes_to(f"/proc/{pid}/fd/0").startswith("socket:")
            await daemon.labs.remove("town")

    run(scenario)


def test_what_it_cannot_be_is_said_before_anything_is_done() -> None:
    async def scenario(house: House) -> None:
        async with town(house) as daemon:
            for options, words in (
                ({"nodes": 17}, "from 1 to 16"),
                ({"nodes": 0}, "from 1 to 16"),
                ({"subnet": "10.0.0.0/8"}, "prefix from /24 to /28"),
                ({"subnet": "fe80::/64"}, "no subnet"),
                ({"nodes": 15, "subnet": "10.0.0.0/28"}, "no addresses for 15"),
                ({"kernel": "/k", "append": "x=%d"}, r"'%d', which is none of"),
                ({"append": "x"}, "goes with a kernel"),
            ):
                with pytest.raises(InvalidArgs, match=words):
                    await daemon.create(**options)
            for name in ("", "-a", "a" * 38, "a/b", "a\n"):
                with pytest.raises(InvalidArgs, match="no name for a lab"):
                    await daemon.create(name)
            with pytest.raises(InvalidArgs, match="never runs as root"):
                await daemon.labs.create("town", "root", {}, Extension.SVM)
            await assert_nothing_left(house, daemon)

    run(scenario)


@pytest.mark.parametrize("manner", [Manner.DIES_LATER, Manner.DROPS_THE_FLAG])
def test_a_node_that_does_not_start_leaves_no_lab(manner: Manner) -> None:
    async def scenario(house: House) -> None:
        base = image_tool(house)
        async with town(house) as daemon:
            await daemon.launch("town-2")
            given = [{"path": str(base), "format": "raw"}]
            with pytest.raises(GuestExists, match="town-2"):
                await daemon.create(disks=given)
            assert daemon.guests() == ["town-2"]
            await daemon.registry.kill("town-2")
            await assert_nothing_left(house, daemon)
            house.manner(manner)
            with pytest.raises((LaunchFailed, NestingNotGranted)):
                await daemon.create(cpu="qemu64", disks=given)
            await assert_nothing_left(house, daemon)
            house.manner(Manner.GOOD)
            await daemon.create(disks=given)
            await daemon.labs.remove("town")

    run(scenario)


def test_a_start_that_fails_stops_what_it_has_started_and_nothing_else() -> None:
    async def scenario(house: House) -> None:
        async with town(house) as daemon:
            await daemon.create(nodes=3)
            await daemon.registry.kill("town-2")
            await daemon.registry.kill("town-3")
            assert daemon.labs.get("town").state is LabState.PARTIAL
            other = await daemon.launch("town-3")
            with pytest.raises(GuestExists, match="town-3"):
                await daemon.labs.start("town", Extension.SVM)
            assert daemon.guests() == ["town-1", "town-3"]
            assert daemon.registry.get("town-3") == other
            assert [node.guest for node in daemon.labs.get("town").nodes] == ["town-1", "", ""]
            assert daemon.kept() == [("town", "")]
            await daemon.registry.kill("town-3")
            await daemon.labs.start("town", Extension.SVM)
            assert daemon.labs.get("town").state is LabState.RUNNING
            await daemon.labs.remove("town")

    run(scenario)


def test_one_thing_at_a_time() -> None:
    async def scenario(house: House) -> None:
        async with town(house) as daemon:
            both = await loop.together(daemon.create(), daemon.create())
            assert sorted(type(one).__name__ for one in both) == ["LabExists", "LabView"]
            with pytest.raises(LabExists, match="town"):
                await daemon.create()
            stops = await loop.together(daemon.labs.stop("town", 10), daemon.labs.remove("town"))
            assert [type(each) for each in stops] == [type(None), Busy]
            await daemon.labs.remove("town")
            for missing in (
                daemon.labs.stop("town", 1),
                daemon.labs.start("town", Extension.SVM),
                daemon.labs.remove("town"),
            ):
                with pytest.raises(LabNotFound, match="town"):
                    await missing

    run(scenario)


def test_the_segment_goes_with_the_last_guest() -> None:
    async def scenario(house: House) -> None:
        async with town(house) as daemon:
            await daemon.create()
            await daemon.registry.kill("town-1")
            assert await daemon.segments() == ["nestd-lab-town.service"]
            await daemon.registry.kill("town-2")
            async with tasks.timeout(20):
                while await daemon.segments():
                    await tasks.sleep(0.01)
            assert [view.state.value for _, view in daemon.heard] == ["running", "partial", "stopped"]
            await daemon.labs.remove("town")

    run(scenario)


def test_a_lab_whose_guests_have_ended_before_it_is_there_has_no_segment() -> None:
    async def scenario(house: House) -> None:
        house.manner(Manner.DIES_WHEN_IT_RUNS)
        options: dict[str, Any] = {"nodes": 1, "user-data": b"x" * (512 << 10)}
        # No last words, which would have it looked at once more, and a record that is written for long.
        for program in ("journalctl", "bsdtar", "env"):
            (house.top / "bin" / program).write_text("#!/bin/sh\n")
            (house.top / "bin" / program).chmod(0o755)
        async with town(house) as daemon:
            for _ in range(4):
                await daemon.create(**options)
                async with tasks.timeout(20):
                    while daemon.guests() or await daemon.segments():
                        await tasks.sleep(0.01)
                await daemon.labs.remove("town")

    run(scenario)


def test_a_segment_that_dies_under_its_guests() -> None:
    async def scenario(house: House) -> None:
        async with town(house) as daemon:
            await daemon.create()
            await daemon.units.kill(labplaces.unit("town"), 9)
            await until(lambda: daemon.heard[-1][1].state is LabState.PARTIAL)
            assert daemon.labs.get("town") == daemon.heard[-1][1]
            await daemon.registry.kill("town-2")
            with pytest.raises(Failed, match="ended under its guests: stop the lab"):
                await daemon.labs.start("town", Extension.SVM)
            await daemon.labs.stop("town", 10)
            await daemon.labs.start("town", Extension.SVM)
            assert daemon.labs.get("town").state is LabState.RUNNING
            await daemon.labs.remove("town")

    run(scenario)


def test_the_next_nestd_finds_all_of_it() -> None:
    async def scenario(house: House) -> None:
        (house.top / "bin/env").symlink_to("/usr/bin/env")
        (house.top / "bin/bsdtar").write_text('#!/bin/sh\ntouch "$4"\n')
        (house.top / "bin/bsdtar").chmod(0o755)
        async with town(house) as daemon:
            given: dict[str, Any] = {"nodes": 3, "subnet": "192.168.7.0/28", "user-data": b"\x1f\x8b\xff"}
            made = await daemon.create(**given)
        async with town(house) as daemon:
            assert daemon.heard == [("added", made)]
            daemon.labs.settle()
            await daemon.registry.kill("town-2")
            await daemon.labs.start("town", Extension.SVM)
            assert daemon.labs.get("town") == made
        # Everything ends while no nestd is there, as with a reboot.
        async with house.nestd() as alone:
            for name in ("town-1", "town-2", "town-3"):
                await alone.registry.kill(name)
        async with town(house) as daemon:
            assert daemon.labs.get("town").state is LabState.STOPPED
            daemon.labs.settle()
            async with tasks.timeout(20):
                while await daemon.segments():
                    await tasks.sleep(0.01)
            await daemon.labs.remove("town")
            await assert_nothing_left(house, daemon)

    run(scenario)


@pytest.mark.parametrize("doing", ["create", "remove"])
def test_what_was_cut_short_is_removed(doing: str) -> None:
    async def scenario(house: House) -> None:
        base = image_tool(house)
        async with town(house) as daemon:
            await daemon.create(disks=[{"path": str(base), "format": "raw"}])
            [lab] = labstore.load_all(daemon.root)
            labstore.save(daemon.root, lab._replace(doing=doing))
            await daemon.registry.kill("town-2")
        async with town(house) as daemon:
            with pytest.raises(Failed, match="only half there: remove it"):
                await daemon.labs.start("town", Extension.SVM)
            daemon.labs.settle()
            await until(lambda: daemon.heard[-1][0] == "removed")
            await assert_nothing_left(house, daemon)

    run(scenario)


def test_a_start_that_was_cut_short_is_undone() -> None:
    async def scenario(house: House) -> None:
        async with town(house) as daemon:
            await daemon.create(nodes=3)
            [lab] = labstore.load_all(daemon.root)
            labstore.save(daemon.root, lab._replace(doing="start", begun=(2, 3)))
        async with town(house) as daemon:
            daemon.labs.settle()
            await until(lambda: daemon.kept() == [("town", "")])
            assert daemon.guests() == ["town-1"]
            assert await daemon.segments() == ["nestd-lab-town.service"]
            await daemon.labs.remove("town")

    run(scenario)


def test_a_guest_joins_a_lab_that_runs() -> None:
    async def scenario(house: House) -> None:
        async with town(house) as daemon:
            joins = GuestSpec("visitor", NOBODY.name, network=Network("lab", lab="town"))
            with pytest.raises(LabNotFound):
                await daemon.labs.join(joins, Extension.SVM)
            await daemon.create(nodes=1)
            both = await loop.together(
                daemon.labs.join(joins, Extension.SVM),
                daemon.labs.join(joins._replace(name="other"), Extension.SVM),
            )
            assert [record.lab for record in both] == ["town", "town"]
            nodes = daemon.labs.get("town").nodes
            assert [(node.name, node.address, node.guest) for node in nodes] == [
                ("town-1", "10.77.0.1/24", "town-1"),
                ("visitor", "10.77.0.2/24", "visitor"),
                ("other", "10.77.0.3/24", "other"),
            ]
            await daemon.registry.kill("visitor")
            await daemon.labs.join(joins._replace(name="third"), Extension.SVM)
            assert daemon.labs.get("town").nodes[2].address == "10.77.0.2/24"
            await daemon.labs.remove("town")
            await assert_nothing_left(house, daemon)

    run(scenario)


def test_who_may_not_join() -> None:
    async def scenario(house: House) -> None:
        async with town(house) as daemon:
            await daemon.create(nodes=1)
            await daemon.labs.stop("town", 10)
            joins = GuestSpec("visitor", NOBODY.name, network=Network("lab", lab="town"))
            with pytest.raises(LaunchFailed, match="does not run: start it"):
                await daemon.labs.join(joins, Extension.SVM)
            [lab] = labstore.load_all(daemon.root)
            labstore.save(daemon.root, lab._replace(owner=4))
        async with town(house) as daemon:
            with pytest.raises(AccessDenied, match="somebody else"):
                await daemon.labs.join(joins, Extension.SVM)
            with pytest.raises(Failed, match="not here any more"):
                await daemon.labs.start("town", Extension.SVM)
            assert daemon.kept() == [("town", "")]
            await daemon.labs.remove("town")
            await assert_nothing_left(house, daemon)

    run(scenario)


def test_a_removal_that_fails_can_be_repeated() -> None:
    async def scenario(house: House) -> None:
        base = image_tool(house)
        async with town(house) as daemon:
            await daemon.create(disks=[{"path": str(base), "format": "raw"}])
            (house.top / "refuse-CleanUnit").touch()
            with pytest.raises(Failed, match="does not remove"):
                await daemon.labs.remove("town")
            assert (daemon.guests(), daemon.kept()) == ([], [("town", "remove")])
            with pytest.raises(Failed, match="half there"):
                await daemon.labs.start("town", Extension.SVM)
            (house.top / "refuse-CleanUnit").unlink()
            await daemon.labs.remove("town")
            await assert_nothing_left(house, daemon)

    run(scenario)


def test_a_removal_goes_to_its_end_though_its_caller_leaves() -> None:
    async def scenario(house: House) -> None:
        async with town(house) as daemon:
            await daemon.create()
            task = tasks.create_task(daemon.labs.remove("town"))
            await until(lambda: daemon.kept() == [("town", "remove")])
            task.cancel()
            with pytest.raises(tasks.Cancelled):
                await task
            with pytest.raises(Busy, match="being removed"):
                await daemon.labs.start("town", Extension.SVM)
            await until(lambda: daemon.heard[-1][0] == "removed")
            with pytest.raises(LabNotFound):
                daemon.labs.get("town")
            await assert_nothing_left(house, daemon)

    run(scenario)


@pytest.mark.parametrize("doing", ["start", "remove"])
def test_a_removal_waits_for_who_settles_in_the_same_moment(doing: str) -> None:
    async def scenario(house: House) -> None:
        async with town(house) as daemon:
            await daemon.create()
            [lab] = labstore.load_all(daemon.root)
            labstore.save(daemon.root, lab._replace(doing=doing, begun=(2,)))
        async with town(house) as daemon:
            removal = tasks.create_task(daemon.labs.remove("town"))
            daemon.labs.settle()
            await removal
            assert daemon.heard[-1][0] == "removed"
            await assert_nothing_left(house, daemon)

    run(scenario)


def test_a_segment_that_systemd_does_not_stop_can_be_stopped_again() -> None:
    async def scenario(house: House) -> None:
        async with town(house) as daemon:
            await daemon.create()
            (house.top / "refuse-StopUnit").touch()
            with pytest.raises(
                Failed, match=r"systemd does not stop all of the lab town: .*Stop the lab again"
            ):
                await daemon.labs.stop("town", 10)
            assert (daemon.guests(), await daemon.segments()) == ([], ["nestd-lab-town.service"])
            (house.top / "refuse-StopUnit").unlink()
            await daemon.labs.stop("town", 10)
            assert await daemon.segments() == []
            await daemon.labs.remove("town")

    run(scenario)


def test_a_guest_that_runs_keeps_its_port_and_a_node_its_name() -> None:
    async def scenario(house: House) -> None:
        async with town(house) as daemon:
            await daemon.create()
            joins = GuestSpec("visitor", NOBODY.name, network=Network("lab", lab="town"))
            await daemon.labs.join(joins, Extension.SVM)
            monitor = house.top / "run/nestd/labs/town/qmp"
            monitor.rename(monitor.with_name("away"))  # whoever asks the hub for anything fails otherwise
            with pytest.raises(GuestExists, match="a guest visitor already"):
                await daemon.labs.join(joins, Extension.SVM)
            await daemon.registry.kill("town-2")
            with pytest.raises(GuestExists, match="town-2 is a node of the lab town"):
                await daemon.labs.join(joins._replace(name="town-2"), Extension.SVM)
            monitor.with_name("away").rename(monitor)
            await daemon.labs.remove("town")
            await assert_nothing_left(house, daemon)

    run(scenario)


def test_a_lab_that_could_not_be_read_keeps_its_name_and_its_disks() -> None:
    async def scenario(house: House) -> None:
        base = image_tool(house)
        async with town(house) as daemon:
            await daemon.create(nodes=1, disks=[{"path": str(base), "format": "raw"}])
            await daemon.labs.stop("town", 10)
        record = house.top / "var/lib/nestd/labs/town.json"
        kept = record.read_bytes()
        record.write_bytes(b"{}")
        async with town(house) as daemon:
            with pytest.raises(LabExists, match=r"could not take up .* /var/lib/nestd/labs/town\.json"):
                await daemon.create()
            assert disks(house) == {"town": ["1-0.qcow2"]}
            assert record.read_bytes() == b"{}"
        record.write_bytes(kept)
        async with town(house) as daemon:
            await daemon.labs.remove("town")
            await assert_nothing_left(house, daemon)

    run(scenario)


def test_disks_that_somebody_left_are_not_taken_over() -> None:
    async def scenario(house: House) -> None:
        base = image_tool(house)
        left = house.top / "var/lib/nestd-labs/town"
        left.mkdir(parents=True)
        (left / "2-0.qcow2").write_text("an older lab's")
        (left / "link").symlink_to(base)
        async with town(house) as daemon:
            await daemon.create(nodes=1, disks=[{"path": str(base), "format": "raw"}])
            assert disks(house) == {"town": ["1-0.qcow2"]}
            await daemon.labs.remove("town")
            assert base.exists()

    run(scenario)


def test_a_create_that_is_cancelled_leaves_nothing() -> None:
    async def scenario(house: House) -> None:
        house.manner(Manner.SAYS_NOTHING)
        async with town(house) as daemon:
            task = tasks.create_task(daemon.create())
            await until((house.top / "run/nestd/guests/town-1/qmp").exists)
            task.cancel()
            with pytest.raises(tasks.Cancelled):
                await task
            await until(lambda: not daemon.kept())
            await assert_nothing_left(house, daemon)

    run(scenario)


def test_a_start_that_is_cancelled_at_its_very_end_is_undone() -> None:
    async def scenario(house: House) -> None:
        async with town(house) as daemon:
            await daemon.create()
            await daemon.labs.stop("town", 10)
            live = daemon.labs._roll.get("town")
            task = tasks.create_task(daemon.labs.start("town", Extension.SVM))
            for doing in ("start", ""):
                while live.lab.doing != doing:
                    await tasks.sleep(0)
            assert task.cancel()
            with pytest.raises(tasks.Cancelled):
                await task
            assert (daemon.guests(), await daemon.segments(), daemon.kept()) == ([], [], [("town", "")])
            await daemon.labs.remove("town")

    run(scenario)


def test_a_create_that_is_cancelled_at_its_very_end_and_not_undone_is_half_there() -> None:
    async def scenario(house: House) -> None:
        house.manner(Manner.IGNORES_THE_BUTTON)
        async with town(house) as daemon:
            task = tasks.create_task(daemon.create(nodes=1))
            while daemon.kept() != [("town", "")]:
                await tasks.sleep(0)
            (house.top / "refuse-StopUnit").touch()
            assert task.cancel()
            with pytest.raises(tasks.Cancelled):
                await task
            await until(lambda: bool(daemon.heard))
            (house.top / "refuse-StopUnit").unlink()
            assert daemon.kept() == [("town", "create")]
            with pytest.raises(Failed, match="only half there"):
                await daemon.labs.start("town", Extension.SVM)
            await daemon.labs.remove("town")
            await assert_nothing_left(house, daemon)

    run(scenario)


def test_readonly_and_snapshot_disks_are_nobodys_base() -> None:
    async def scenario(house: House) -> None:
        async with town(house) as daemon:
            given = [
                {"path": "/a", "format": "raw", "readonly": True},
                {"path": "/b", "format": "qcow2", "snapshot": True},
            ]
            await daemon.create(nodes=1, disks=given)
            assert disks(house) == {}
            assert places.unit("town-1") in await daemon.units.matching(places.UNIT_PATTERN)
            assert Disk("/a", "raw", True) == Disk(**given[0])  # type: ignore[arg-type]
            await daemon.labs.remove("town")

    run(scenario)
