# SPDX-License-Identifier: LGPL-2.1-or-later
"""What Launch's options need beside QEMU: files made before it, descriptors, programs."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
from itertools import pairwise
from pathlib import Path

import pytest

from nestd.errors import LaunchFailed
from nestd.guestmodel import Disk, GuestSpec, Network, Overlay
from nestd.guests import refusals
from nestd.model import Extension
from tests.guests.house import House, run


def _argv(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


def _input(pid: int) -> os.stat_result:
    return Path(f"/proc/{pid}/fd/0").stat()


def _installed(house: House, *names: str) -> None:
    """Have the machine's own programs in the house, and its UEFI."""
    for name in names:
        found = shutil.which(name)
        assert found, name
        (house.top / "bin" / name).symlink_to(found)
    folder = house.top / "usr/share/OVMF"
    folder.mkdir(parents=True)
    for name in ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"):
        (folder / name).write_text(name)


def test_what_qemu_needs_is_there_before_it_and_the_users_own(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        _installed(house, "install", "env", "bsdtar", "qemu-img")
        (house.top / "base").write_bytes(bytes(1 << 20))
        made = house.top / "overlays"
        made.mkdir()
        os.chown(made, 65534, 65534)
        async with house.nestd() as nestd:
            record = await nestd.launch(
                firmware="uefi",
                display="vnc",
                user_data=b"#cloud-config\n",
                overlays=(Overlay(str(made / "a.qcow2"), str(house.top / "base"), "raw"),),
            )
            assert record.vnc == "/run/nestd/guests/demo/vnc"
            folder = house.top / "run/nestd/guests/demo"
            for path in (folder / "seed.iso", folder / "uefi-variables.fd", made / "a.qcow2"):
                found = path.stat()
                assert (found.st_uid, found.st_mode & 0o077) == (65534, 0), path
            assert (folder / "uefi-variables.fd").read_text() == "OVMF_VARS_4M.fd"
            argv = _argv(record.pid)
            nodes = {
                node["node-name"]: node["file"]["filename"]
                for node in (json.loads(word) for at, word in enumerate(argv) if argv[at - 1] == "-blockdev")
            }
            assert nodes == {
                "seed": f"{folder}/seed.iso",
                "code": f"{house.top}/usr/share/OVMF/OVMF_CODE_4M.fd",
                "variables": f"{folder}/uefi-variables.fd",
            }
            assert list((house.top / "run/nestd/handover").iterdir()) == []
            await nestd.registry.kill("demo")

    run(scenario)


def test_what_was_handed_over_and_left_by_a_nestd_that_died_is_removed() -> None:
    async def scenario(house: House) -> None:
        left = house.top / "run/nestd/handover/other.user-data"
        left.parent.mkdir(parents=True)
        left.write_text("secret")
        async with house.nestd():
            assert list(left.parent.iterdir()) == []
            left.parent.rmdir()
            left.parent.symlink_to("handover")
        async with house.nestd() as other:  # which is no reason to find no guests
            await other.launch()
        async with house.nestd() as third:
            await third.registry.kill("demo")

    run(scenario)


def test_a_preparation_that_fails_is_quoted_and_leaves_nothing() -> None:
    async def scenario(house: House) -> None:
        _installed(house, "env")
        program = house.top / "bin/bsdtar"
        program.write_text("#!/bin/sh\necho 'bsdtar: no room left' >&2; exit 1\n")
        program.chmod(0o755)
        async with house.nestd() as nestd:
            with pytest.raises(LaunchFailed, match=r"did not start \(failed\): bsdtar: no room left"):
                await nestd.launch(user_data=b"x")
            assert house.runs() == []
            assert list((house.top / "run/nestd/handover").iterdir()) == []
            assert not (house.top / "run/credentials/nestd-guest-demo.service").exists()

    run(scenario)


def test_a_folder_that_cannot_be_trusted_gets_no_user_data() -> None:
    async def scenario(house: House) -> None:
        _installed(house, "env", "bsdtar")
        (house.top / "theirs").mkdir(mode=0o777)
        (house.top / "theirs").chmod(0o777)
        (house.top / "run/nestd").mkdir()
        (house.top / "run/nestd/handover").symlink_to(house.top / "theirs")
        async with house.nestd() as nestd:
            with pytest.raises(
                LaunchFailed, match=r"user-data cannot be handed .*handover: .*a symbolic link"
            ):
                await nestd.launch(user_data=b"secret")
            assert house.runs() == []
            assert list((house.top / "theirs").iterdir()) == []

    run(scenario)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"firmware": "uefi"}, "install the package ovmf"),
        ({"user_data": b"x"}, "install libarchive-tools"),
        ({"overlays": (Overlay("/a", "/b", "raw"),)}, "qemu-img is not installed"),
        ({"network": Network("lab", lab="two")}, "The lab two does not run"),
    ],
)
def test_what_an_option_needs_is_told_before_anything_starts(options: dict[str, object], words: str) -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            with pytest.raises(LaunchFailed, match=words):
                await nestd.launch("demo", **options)
            assert house.runs() == []

    run(scenario)


def test_a_labs_segment_is_qemus_first_descriptor_and_stays_the_callers() -> None:
    async def scenario(house: House) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            async with house.nestd() as nestd:
                spec = GuestSpec("demo", "guestling", network=Network("lab", lab="two"))
                record = await nestd.launcher.launch(spec, Extension.SVM, theirs.fileno())
                assert record.lab == "two"
                inode = os.fstat(theirs.fileno()).st_ino
                assert _input(record.pid).st_ino == inode
                await nestd.registry.kill("demo")

    run(scenario)


def test_a_block_device_is_qemus_disk() -> None:
    async def scenario(house: House) -> None:
        os.mknod(house.top / "dev/sdb", stat.S_IFBLK | 0o600, os.makedev(8, 16))
        async with house.nestd() as nestd:
            record = await nestd.launch(disks=(Disk("/dev/sdb", "raw"), Disk("/dev/shm/x", "raw")))
            argv = _argv(record.pid)
            nodes = [json.loads(value) for name, value in pairwise(argv) if name == "-blockdev"]
            assert [node["file"]["driver"] for node in nodes] == ["host_device", "file"]
            await nestd.registry.kill("demo")

    run(scenario)


def test_a_port_that_is_taken_is_told_with_what_to_do() -> None:
    """The words are QEMU's: tests/vm/test_launch.py has it say them."""
    why = "-netdev user,id=user: Could not set up host forwarding rule 'tcp:127.0.0.1:2222-:22'"
    spec = GuestSpec("demo", "guestling", network=Network("user"))
    told = refusals.not_started(spec, why)
    assert told.startswith(f"QEMU did not start demo: {why}\nSomething else listens on that port")
    assert refusals.not_started(spec, "it broke") == "QEMU did not start demo: it broke"


def test_a_guest_of_nestds_own_is_nobodys_and_need_not_run() -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            spec = GuestSpec("_probe", "guestling")
            started = await nestd.launcher.start(spec, Extension.SVM, runs=False)
            assert started.record.nesting and house.runs() == ["_probe"]
            # It would have said hello.
            assert (house.top / "run/nestd/console/_probe").read_bytes() == b""
            await nestd.launcher.end(started)
            assert (nestd.registry.records, nestd.told, house.runs()) == ((), [], [])

    run(scenario)
