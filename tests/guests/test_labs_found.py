# SPDX-License-Identifier: LGPL-2.1-or-later
"""Labs of an earlier nestd of which not everything is found again, or not at once."""

from __future__ import annotations

import json
import os
import signal

import pytest

from nestd import tasks
from nestd.bus.connection import Connection
from nestd.errors import Busy, Failed, GuestExists, GuestNotFound, LabExists, LabNotFound
from nestd.guestmodel import GuestSpec, Network
from nestd.guests import labplaces, places
from nestd.guests.lab import LabState
from nestd.model import Extension
from tests.guests.house import NOBODY, House, run, until
from tests.guests.town import Town, town


def looked_for(daemon: Town, name: str) -> bool:
    """Whether nobody can take the name, as a guest of that name is being found or has been."""
    try:
        with daemon.registry.reserve(name):
            return False
    except GuestExists:
        return True


async def slow(house: House, name: str) -> int:
    """A guest that runs, and that the next nestd cannot find before its QEMU is let go on: its process."""
    async with house.nestd() as alone:
        pid = alone.registry.get(name).pid
    os.kill(pid, signal.SIGSTOP)
    (house.top / places.record(name)[1:]).unlink()
    return pid


@pytest.mark.parametrize("joined", [False, True])
def test_a_node_that_is_slow_to_be_found_is_waited_for(joined: bool) -> None:
    async def scenario(house: House) -> None:
        async with town(house) as daemon:
            await daemon.create()
        pid = await slow(house, "town-1")
        connection = await Connection.connect(house.address)
        daemon = Town(house.top, connection)
        try:
            finding = tasks.create_task(daemon.registry.restore())
            await until(lambda: looked_for(daemon, "town-1"))
            await daemon.labs.restore()
            with pytest.raises(Busy, match="what became of town-1"):
                await daemon.registry.found(["town-1", "nobody"], 0.01)
            if joined:
                joins = GuestSpec("visitor", NOBODY.name, network=Network("lab", lab="town"))
                asked = tasks.create_task(_join(daemon, joins))
            else:
                asked = tasks.create_task(daemon.labs.start("town", Extension.SVM))
            await tasks.wait([asked], 0.2)
            assert not asked.done()
            os.kill(pid, signal.SIGCONT)
            await asked
            await finding
            assert daemon.registry.get("town-1").pid == pid
            assert daemon.labs.get("town").state is LabState.RUNNING
            await daemon.labs.remove("town")
        finally:
            await daemon.labs.close()
            await daemon.registry.close()
            await connection.close()

    run(scenario)


async def _join(daemon: Town, spec: GuestSpec) -> None:
    await daemon.labs.join(spec, Extension.SVM)


def test_a_node_that_cannot_be_found_again_is_ended_with_its_lab() -> None:
    async def scenario(house: House) -> None:
        async with town(house) as daemon:
            await daemon.create()
        refuse = house.top / "refuse-GetAll"
        refuse.write_text(places.unit("town-1"))
        async with town(house) as daemon:
            assert daemon.guests() == ["town-2"]
            with pytest.raises(Failed, match="systemd does not tell which guests of the lab town run"):
                await daemon.labs.start("town", Extension.SVM)
            refuse.unlink()
            with pytest.raises(Failed, match=r"nestd-guest-town-1\.service runs, but .*stop the lab, then"):
                await daemon.labs.start("town", Extension.SVM)
            assert house.runs() == ["town-1", "town-2"]
            await daemon.labs.stop("town", 10)
            assert (house.runs(), await daemon.segments()) == ([], [])
            await daemon.labs.start("town", Extension.SVM)
            assert daemon.labs.get("town").state is LabState.RUNNING
            await daemon.labs.remove("town")

    run(scenario)


def test_a_guest_of_somebody_else_is_not_ended_with_a_lab() -> None:
    async def scenario(house: House) -> None:
        async with town(house) as daemon:
            await daemon.create(nodes=1)
            await daemon.registry.kill("town-1")
            await daemon.launch("town-1")
        (house.top / "refuse-GetAll").write_text(places.unit("town-1"))
        async with town(house) as daemon:
            (house.top / "refuse-GetAll").unlink()
            await daemon.labs.stop("town", 10)
            assert house.runs() == ["town-1"]
            await daemon.units.stop(places.unit("town-1"))
            await until(lambda: house.runs() == [])
            await daemon.labs.remove("town")

    run(scenario)


def test_a_lab_that_cannot_be_taken_up_keeps_no_other_from_it(capfd: pytest.CaptureFixture[str]) -> None:
    async def scenario(house: House) -> None:
        async with town(house) as daemon:
            for name in ("a", "b", "c"):
                await daemon.create(name, nodes=1)
        (house.top / "refuse-GetAll").write_text(labplaces.unit("b"))
        async with town(house) as daemon:
            assert [daemon.labs.get(name).state.value for name in ("a", "c")] == ["running", "running"]
            with pytest.raises(LabNotFound):
                daemon.labs.get("b")
            with pytest.raises(LabExists, match="could not take up"):
                await daemon.create("b")
            (house.top / "refuse-GetAll").unlink()
        async with town(house) as daemon:
            for name in ("a", "b", "c"):
                await daemon.labs.remove(name)

    run(scenario)
    [told] = [line for line in capfd.readouterr().err.splitlines() if "The lab b is left out" in line]
    assert "systemd does not tell of nestd-lab-b.service: no" in told


@pytest.mark.parametrize("text", [b"\xff\xfe", b'{"joined": {"visitor": 1000000}}'])
def test_a_record_that_is_broken_keeps_no_other_from_being_taken_up(text: bytes) -> None:
    async def scenario(house: House) -> None:
        async with town(house) as daemon:
            for name in ("a", "b"):
                await daemon.create(name, nodes=1)
        for path in (labplaces.record("a"), places.record("a-1")):
            record = house.top / path[1:]
            changed = json.loads(record.read_text())
            try:
                record.write_text(json.dumps(changed | json.loads(text)))
            except (ValueError, TypeError):
                record.write_bytes(text)
        async with town(house) as daemon:
            assert daemon.labs.get("b").state is LabState.RUNNING
            await daemon.labs.remove("b")
            await daemon.registry.kill("a-1")

    run(scenario)


def test_what_there_is_not_is_named_in_short() -> None:
    async def scenario(house: House) -> None:
        async with town(house) as daemon:
            for find in (daemon.registry.find, daemon.labs.get):
                with pytest.raises((GuestNotFound, LabNotFound), match=r"^There is no \w+ 'x{60}\.\.\.': "):
                    find("x" * 100_000)

    run(scenario)
