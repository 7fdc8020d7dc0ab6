# SPDX-License-Identifier: LGPL-2.1-or-later
"""Block devices as disks and as the CD: the node's own mode decides, and nothing else is let through."""

from __future__ import annotations

import re

import pytest

from tests.vm.machine import Machine
from tests.vm.test_launch import GREETING, LOOK, LOOKED, SAY, initramfs, launch, said

# What each holds, the owner of its node.
_LOOPS = {1: ("kept", "alice"), 2: ("fixed", "alice"), 3: ("other", "alice"), 4: ("bobs", "bob")}


def _attach(machine: Machine) -> None:
    machine.sh("modprobe loop; mkdir -p /dev/mapper; ln -s ../loop2 /dev/mapper/vg-lv")
    for number, (name, _) in _LOOPS.items():
        machine.sh(
            f"cd /root; printf %-5.5s {name} > {name}; truncate -s 1M {name}; "
            f"losetup /dev/loop{number} {name}"
        )
    # udev sets owners as well, when it sees them.
    machine.sh("udevadm settle")
    for number, (_, owner) in _LOOPS.items():
        machine.sh(f"chown {owner} /dev/loop{number}; chmod 600 /dev/loop{number}")


@pytest.fixture
def loops(machine: Machine) -> Machine:
    """The machine, with /dev/loop1 to /dev/loop4, and /dev/mapper/vg-lv."""
    _attach(machine)
    return machine


def test_they_are_read_and_written_as_far_as_was_asked(loops: Machine) -> None:
    machine = loops
    initramfs(machine, LOOK)
    launch(
        machine, "--memory", "192M", "--kernel", "/boot/vmlinuz", "--initrd", "/tmp/guest.cpio.gz",
        "--append", "console=ttyS0 quiet",
        "--disk", "path=/dev/loop1,format=raw,snapshot",
        "--disk", "path=/dev/mapper/vg-lv,format=raw,readonly",
        "--disk", "path=/dev/loop3,format=raw",
    )  # fmt: skip
    machine.run(["systemd-analyze", "security", "--threshold=30", "nestd-guest-demo.service"])
    let = machine.out("systemctl", "show", "-P", "DeviceAllow", "nestd-guest-demo.service")
    assert set(re.findall(r"/dev/\S+ [rwm]+", let)) == {
        "/dev/kvm rw", "/dev/block/7:1 r", "/dev/block/7:2 r", "/dev/block/7:3 rw",
    }, let  # fmt: skip
    told = said(machine, "guest-ready").replace("\r", "")
    assert [line for line in told.split("\n") if line.startswith("vd")] == LOOKED
    machine.run(["nestctl", "kill", "demo"])
    held = [machine.out("head", "-c", "5", f"/dev/loop{number}").strip() for number in (1, 2, 3)]
    assert held == ["kept", "fixed", "spoil"]


@pytest.mark.nightly
def test_a_guest_starts_from_a_cd_that_is_a_device(loops: Machine) -> None:
    machine = loops
    sector = (SAY + GREETING + b"\0").ljust(2048, b"\0")
    machine.push(("boot.bin", sector), to="/root/cd")
    machine.sh(
        "cd /root/cd; bsdtar --format=iso9660 -cf /root/cd.iso "
        "--options='boot=boot.bin,boot-type=no-emulation,boot-load-size=4' boot.bin; "
        "losetup -r /dev/loop5 /root/cd.iso; udevadm settle; chown alice /dev/loop5; chmod 400 /dev/loop5"
    )
    launch(machine, "--memory", "64M", "--cdrom", "/dev/loop5")
    said(machine, GREETING.decode().strip())
    machine.run(["nestctl", "kill", "demo"])


@pytest.mark.parametrize(
    ("disk", "user", "words"),
    [
        ("/dev/loop4", "alice", ["Permission denied", "QEMU runs as the user alice, who has to be let read"]),
        ("/root/kept", "nestd", ["Permission denied", "QEMU runs as the user nestd, who has to be let read"]),
        ("/dev/null", "alice", ["regular file"]),
    ],
)
def test_what_its_user_may_not_open_is_refused(
    loops: Machine, disk: str, user: str, words: list[str]
) -> None:
    refused = loops.run(
        ["nestctl", "launch", "bad", "--user", user, "--disk", f"path={disk},format=raw"],
        check=False,
        timeout=240,
    )
    assert refused.code == 1 and all(each in refused.stderr for each in words), refused
    assert loops.sh("systemctl list-units --all 'nestd-guest-*' --no-legend").stdout.strip() == ""


def test_a_file_that_the_network_hides_is_said_to_be_hidden(machine: Machine) -> None:
    machine.sh("mkdir -p /run/mine; truncate -s 1M /run/mine/d; chown -R alice /run/mine")
    command = "nestctl launch bad --user alice --network user --disk path=/run/mine/d,format=raw"
    refused = machine.sh(command, check=False, timeout=240)
    assert refused.code == 1 and "No such file or directory" in refused.stderr, refused
    assert "a guest with the network user sees of /run little more than /run/media" in refused.stderr, refused
