# SPDX-License-Identifier: LGPL-2.1-or-later
"""QEMU's devices: how each is asked for, and that the real QEMU has them, on real files and sockets."""

from __future__ import annotations

import json
import shutil
import socket
import struct
import subprocess
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from nestd.guestmodel import Disk, Firmware, Forward, GuestSpec, Network
from nestd.host.qmpsocket import QmpSocket
from nestd.text import qemudevices
from tests.support import loop
from tests.text.realqemu import monitor_of, running

OVMF = Path("/usr/share/OVMF")
ODD = 'a,b $X "q" %n.iso'


def _after(argv: list[str], option: str) -> list[str]:
    return [value for name, value in pairwise(argv) if name == option]


def test_a_block_device_is_asked_for_as_one() -> None:
    """QEMU's drivers file and host_device each refuse what is for the other (block/file-posix.c)."""
    for device, driver in ((False, "file"), (True, "host_device")):
        for argv in (
            qemudevices.disk(Disk("/dev/a", "qcow2"), "disk0", device),
            qemudevices.cdrom("/dev/sr0", device),
        ):
            [node] = _after(argv, "-blockdev")
            assert json.loads(node)["file"]["driver"] == driver
        [drive] = _after(qemudevices.disk(Disk("/dev/a", "raw", snapshot=True), "d", device), "-drive")
        assert f"file.driver={driver},file.filename=/dev/a" in drive


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (Network(), ["-nic", "none"]),
        (
            Network("user", (Forward("tcp", "127.0.0.1", 2222, 22), Forward("udp", "10.0.0.1", 5353, 53))),
            [
                "-netdev",
                "user,id=user,hostfwd=tcp:127.0.0.1:2222-:22,hostfwd=udp:10.0.0.1:5353-:53",
                "-device",
                "virtio-net-pci,netdev=user,romfile=",
            ],
        ),
        (
            Network("lab", lab="a.b-1", mac="52:54:00:00:00:01", address="10.77.0.1/24"),
            [
                "-netdev",
                "socket,id=lab.a.b-1,fd=0",
                "-device",
                "virtio-net-pci,netdev=lab.a.b-1,mac=52:54:00:00:00:01,romfile=",
            ],
        ),
    ],
)
def test_networks(network: Network, said: list[str]) -> None:
    assert qemudevices.network(network) == said
    assert qemudevices.lab(said[1]) == network.lab


def test_paths_are_not_taken_apart() -> None:
    [node] = _after(qemudevices.cdrom(f"/d/{ODD}"), "-blockdev")
    assert json.loads(node)["file"] == {"driver": "file", "filename": f"/d/{ODD}", "read-only": True}
    [screen] = _after(qemudevices.vnc("/run/x,y"), "-vnc")
    assert screen == "unix:/run/x,,y/vnc"


def _play(
    folder: Path,
    spec: GuestSpec,
    scenario: Callable[[QmpSocket], Awaitable[None]],
    firmware: Firmware | None = None,
    **how: Any,
) -> str:
    """Have QEMU with this guest, ask it, end it; what it said."""

    async def asked(process: subprocess.Popen[str]) -> None:
        async with await monitor_of(folder, process) as monitor:
            await scenario(monitor)
            await monitor.execute("quit")

    with running(folder, spec, firmware, **how) as process:
        loop.run(asked(process))
        assert process.wait(30) == 0
        assert process.stderr is not None
        return process.stderr.read()


def test_the_real_qemu_has_cd_seed_and_firmware_beside_as_many_disks_as_there_may_be(tmp_path: Path) -> None:
    for name in (ODD, "disk.img", "seed.iso"):
        (tmp_path / name).write_bytes(bytes(1 << 20))
        (tmp_path / name).chmod(0o444)
    shutil.copy(OVMF / "OVMF_VARS_4M.fd", tmp_path / "uefi-variables.fd")
    uefi = Firmware(str(OVMF / "OVMF_CODE_4M.fd"), str(OVMF / "OVMF_VARS_4M.fd"))
    disks = (Disk(str(tmp_path / "disk.img"), "raw", readonly=True),) * 24
    spec = GuestSpec("demo", "alice", "qemu64", memory=64 << 20, disks=disks, cdrom=str(tmp_path / ODD))
    spec = spec._replace(user_data=b"x", firmware="uefi", display="vnc", network=Network("user"))

    async def scenario(monitor: QmpSocket) -> None:
        nodes = {node["node-name"]: node for node in await monitor.execute("query-named-block-nodes")}
        files = {
            name: (nodes[name]["file"], nodes[name]["ro"]) for name in ("cdrom", "seed", "code", "variables")
        }
        assert files == {
            "cdrom": (str(tmp_path / ODD), True),
            "seed": (str(tmp_path / "seed.iso"), True),
            "code": (uefi.code, True),
            "variables": (str(tmp_path / "uefi-variables.fd"), False),
        }
        drives = await monitor.execute("query-block")
        assert len([drive for drive in drives if "virtio" in drive.get("qdev", "")]) == 25
        [drive] = [drive for drive in drives if "tray_open" in drive]
        assert drive["inserted"]["file"] == str(tmp_path / ODD)

    assert _play(tmp_path, spec, scenario, uefi) == ""


def test_a_forwarded_port_listens_where_it_was_told_to(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    network = Network("user", (Forward("tcp", "127.0.0.1", port, 22), Forward("udp", "127.0.0.1", port, 53)))

    async def scenario(monitor: QmpSocket) -> None:
        told = await monitor.execute("human-monitor-command", {"command-line": "info usernet"})
        rows = [line.split() for line in told.splitlines() if "HOST_FORWARD" in line]
        assert sorted((row[0], row[2], row[3], row[5]) for row in rows) == [
            ("TCP[HOST_FORWARD]", "127.0.0.1", str(port), "22"),
            ("UDP[HOST_FORWARD]", "127.0.0.1", str(port), "53"),
        ]
        with socket.create_connection(("127.0.0.1", port), 10):
            pass

    spec = GuestSpec("demo", "alice", "qemu64", memory=64 << 20, network=network)
    assert _play(tmp_path, spec, scenario) == ""


def test_a_screen_speaks_rfb_on_a_socket_for_its_owner_alone(tmp_path: Path) -> None:
    async def scenario(monitor: QmpSocket) -> None:
        assert (tmp_path / "vnc").stat().st_mode & 0o077 == 0
        with socket.socket(socket.AF_UNIX) as viewer:
            viewer.settimeout(30)
            viewer.connect(str(tmp_path / "vnc"))
            assert viewer.recv(12) == b"RFB 003.008\n"  # RFC 6143, 7.1.1
        [tablet] = [mouse for mouse in await monitor.execute("query-mice") if mouse["absolute"]]
        assert "Tablet" in tablet["name"]

    spec = GuestSpec("demo", "alice", "qemu64", memory=64 << 20, display="vnc")
    assert _play(tmp_path, spec, scenario, umask=0o077) == ""


def test_a_lab_is_what_comes_as_the_first_descriptor(tmp_path: Path) -> None:
    network = Network("lab", lab="two", mac="52:54:00:aa:bb:cc")
    spec = GuestSpec("demo", "alice", "qemu64", memory=64 << 20, network=network)
    ours, theirs = socket.socketpair()

    async def scenario(monitor: QmpSocket) -> None:
        theirs.close()
        # QEMU announces the card's address, as after a migration, once the guest runs.
        await monitor.execute("cont")
        await monitor.execute("announce-self", {"initial": 50, "max": 100, "rounds": 1, "step": 10})
        ours.settimeout(30)
        [size] = struct.unpack(">I", ours.recv(4, socket.MSG_WAITALL))
        frame = ours.recv(size, socket.MSG_WAITALL)
        assert frame[6:12] == bytes.fromhex("525400aabbcc")

    with ours:
        assert _play(tmp_path, spec, scenario, stdin=theirs) == ""
