# SPDX-License-Identifier: LGPL-2.1-or-later
"""A lab's segment, with the real QEMU as its hub: frames go where they should, and ports can be had anew."""

from __future__ import annotations

import shutil
import signal
import socket
import struct
import sys
from pathlib import Path

import pytest

from nestd import sockets, tasks
from nestd.errors import CallFailed, LaunchFailed
from nestd.guests import labplaces
from nestd.guests.segment import Segment
from nestd.host.commands import Commands
from nestd.host.root import Root
from nestd.host.units import Units
from tests.guests.house import NOBODY, House, run

QEMU = shutil.which("qemu-system-x86_64") or "/usr/bin/qemu-system-x86_64"


def frame(mark: bytes, size: int = 60) -> bytes:
    """An Ethernet frame to everybody."""
    return (b"\xff" * 6 + b"\x52\x54\x00\x00\x00" + mark + b"\x88\xb5").ljust(size, mark)


async def send(end: socket.socket, data: bytes) -> None:
    end.setblocking(False)
    await sockets.send(end, struct.pack(">I", len(data)) + data)


async def receive(end: socket.socket, limit: float = 10.0) -> bytes:
    """The next frame; TimeoutError if none comes."""
    end.setblocking(False)
    async with tasks.timeout(limit):
        (size,) = struct.unpack(">I", await _exactly(end, 4))
        return await _exactly(end, size)


async def _exactly(end: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = await sockets.receive(end, size - len(data))
        if not piece:
            raise ConnectionResetError("the hub hung up")
        data += piece
    return data


def segment(house: House, units: Units, lab: str = "town") -> Segment:
    commands = Commands(f"{house.top}/bin:/usr/bin:/bin")
    return Segment(Root(str(house.top)), commands, units, "/bin", lab, NOBODY.uid)


def real(house: House) -> None:
    """Let QEMU be the real one."""
    program = house.top / "bin/qemu-system-x86_64"
    program.unlink()
    program.symlink_to(QEMU)


def test_a_start_that_systemd_takes_back_is_explained() -> None:
    async def scenario(house: House) -> None:
        (house.top / "job-result").write_text("canceled")
        async with house.nestd() as nestd:
            town = segment(house, nestd.units)
            with pytest.raises(
                LaunchFailed, match="of the lab town did not start: it was stopped before QEMU"
            ):
                await town.start(NOBODY)
            await town.stop()

    run(scenario)


def test_frames_reach_all_others_and_nobody_twice() -> None:
    async def scenario(house: House) -> None:
        real(house)
        async with house.nestd() as nestd:
            town = segment(house, nestd.units)
            await town.start(NOBODY)
            assert town.runs
            with (
                await town.plug("a-1") as one,
                await town.plug("a-2") as two,
                await town.plug("3.c_x") as three,
            ):
                await send(one, frame(b"1"))
                assert await receive(two) == await receive(three) == frame(b"1")
                await send(two, frame(b"2", 9000))
                assert await receive(one) == await receive(three) == frame(b"2", 9000)
                # What comes first is not what it has sent itself.
                await send(three, frame(b"3"))
                assert await receive(two) == frame(b"3")
                assert await receive(one) == frame(b"3")
            await town.stop()
            assert not (house.top / "run/nestd/labs/town").exists()

    run(scenario)


def test_a_guest_that_comes_again_gets_a_new_port() -> None:
    async def scenario(house: House) -> None:
        real(house)
        async with house.nestd() as nestd:
            town = segment(house, nestd.units)
            await town.start(NOBODY)
            with await town.plug("a-1") as one:
                with await town.plug("a-2") as two:
                    await send(two, frame(b"x"))
                    assert await receive(one) == frame(b"x")
                await send(one, frame(b"l"))
                with await town.plug("a-2") as again, await town.plug("a-1") as other:
                    await send(other, frame(b"y"))
                    assert await receive(again) == frame(b"y")
                    await town.unplug(["a-1", "nobody"])
                    with pytest.raises(ConnectionResetError):
                        await receive(other)
            await town.stop()

    run(scenario)


def test_who_does_not_read_delays_nobody() -> None:
    async def scenario(house: House) -> None:
        real(house)
        async with house.nestd() as nestd:
            town = segment(house, nestd.units)
            await town.start(NOBODY)
            with (
                await town.plug("a-1") as one,
                await town.plug("a-2") as two,
                await town.plug("deaf") as deaf,
            ):
                for number in range(1000):
                    await send(one, frame(bytes([number % 256]), 1514))
                    assert await receive(two) == frame(bytes([number % 256]), 1514)
                assert deaf.fileno() > 0
            await town.stop()

    run(scenario)


def test_the_next_nestd_finds_it_and_can_plug_in() -> None:
    async def scenario(house: House) -> None:
        real(house)
        async with house.nestd() as nestd:
            town = segment(house, nestd.units)
            await town.start(NOBODY)
            one = await town.plug("a-1")
            await town.close()
            assert not town.runs
        with one:
            async with house.nestd() as nestd:
                town = segment(house, nestd.units)
                await town.find()
                assert town.runs
                with await town.plug("a-2") as two:
                    await send(one, frame(b"1"))
                    assert await receive(two) == frame(b"1")
                await town.stop()
                await town.find()
                assert not town.runs

    run(scenario)


def test_a_hub_that_does_not_start_is_quoted_and_gone() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            (house.top / "bin/qemu-system-x86_64").write_text(
                "#!/bin/sh\necho 'no such machine' >&2; exit 1\n"
            )
            town = segment(house, nestd.units)
            with pytest.raises(LaunchFailed, match=r"segment of the lab town did not start: no such machine"):
                await town.start(NOBODY)
            await town.stop()
            assert not town.runs
            assert await nestd.units.matching("nestd-lab-*") == {}
            (house.top / "bin/qemu-system-x86_64").unlink()
            with pytest.raises(LaunchFailed, match="install the package"):
                await town.start(NOBODY)

    run(scenario)


_PYTHON = Path(sys.executable).resolve()
_BABBLER = f"""#!{_PYTHON} -I
import socket, sys
[chardev] = [each for each in sys.argv if each.startswith("socket,id=qmp")]
server = socket.socket(socket.AF_UNIX)
server.bind(chardev.split(",")[2].removeprefix("path="))
server.listen()
server.accept()[0].sendall(b"hello\\n")
"""


def test_a_hub_that_is_none_is_said_to_be() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            program = house.top / "bin/qemu-system-x86_64"
            program.write_text(_BABBLER)
            town = segment(house, nestd.units)
            with pytest.raises(LaunchFailed, match="segment of the lab town did not start"):
                await town.start(NOBODY)
            await town.stop()
            assert await nestd.units.matching("nestd-lab-*") == {}

    run(scenario)


def test_a_hub_that_is_hung_is_said_to_be() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            town = segment(house, nestd.units)
            await town.start(NOBODY)
            await nestd.units.kill(labplaces.unit("town"), signal.SIGSTOP)
            with pytest.raises(LaunchFailed, match="the lab town: it does not answer in time"):
                await town.plug("a-1")
            await nestd.units.kill(labplaces.unit("town"), signal.SIGCONT)
            await town.stop()

    run(scenario)


def test_a_stop_that_systemd_refuses_can_be_repeated() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            town = segment(house, nestd.units)
            await town.start(NOBODY)
            (house.top / "refuse-StopUnit").touch()
            with pytest.raises(CallFailed):
                await town.stop()
            assert town.runs
            (house.top / "refuse-StopUnit").unlink()
            await town.stop()
            assert await nestd.units.matching("nestd-lab-*") == {}

    run(scenario)


def test_a_hub_that_goes_away_is_noticed() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            town = segment(house, nestd.units)
            await town.start(NOBODY)
            end = await town.plug("a-1")
            with end:
                await nestd.units.kill(labplaces.unit("town"), 9)
                assert await sockets.receive(end, 1) == b""
                with pytest.raises(LaunchFailed, match="town"):
                    await town.plug("a-2")
            await town.stop()

    run(scenario)


def test_a_unit_of_that_name_is_left_alone() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            first, second = segment(house, nestd.units), segment(house, nestd.units)
            await first.start(NOBODY)
            with pytest.raises(LaunchFailed, match=r"nestd-lab-town\.service that nestd did not start"):
                await second.start(NOBODY)
            await second.stop()
            assert first.runs
            await first.stop()

    run(scenario)


def test_a_monitor_that_was_put_in_its_place_is_not_talked_to(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            town = segment(house, nestd.units)
            await town.start(NOBODY)
            path = house.top / "run/nestd/labs/town/qmp"
            path.rename(path.with_name("away"))
            with socket.socket(socket.AF_UNIX) as root:
                root.bind(str(tmp_path / "qmp"))
                root.listen(1)
                path.symlink_to(tmp_path / "qmp")
                with pytest.raises(LaunchFailed, match="not a socket of uid 65534"):
                    await town.plug("a-1")
            path.unlink()
            path.with_name("away").rename(path)
            await town.stop()

    run(scenario)


def _of(process: Path) -> tuple[int, set[str]]:
    """Whose it is, and what it has open."""
    return process.stat().st_uid, {str(each.readlink()) for each in (process / "fd").iterdir()}


def test_it_runs_as_its_owner_without_kvm() -> None:
    async def scenario(house: House) -> None:
        real(house)
        async with house.nestd() as nestd:
            town = segment(house, nestd.units)
            await town.start(NOBODY)
            process = Path(f"/proc/{(await nestd.units.properties(labplaces.unit('town')))['MainPID']}")
            owner, opened = _of(process)
            assert owner == NOBODY.uid
            assert "/dev/kvm" not in opened
            await town.stop()

    run(scenario)
