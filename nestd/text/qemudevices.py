# SPDX-License-Identifier: LGPL-2.1-or-later
"""What of QEMU's argument list is about devices: disks, CD, firmware, network, screen.

Source: qemu-system-x86_64(1), QEMU's qapi/block-core.json and net/socket.c. As in text/qemu.py, whatever
comes from outside stands in JSON, or with its commas doubled.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from nestd.guestmodel import Disk, Firmware, Forward, Network

# In the guest's runtime folder.
SEED = "seed.iso"
VARIABLES = "uefi-variables.fd"
VNC = "vnc"
# How the network card's other end is called; behind it a lab's name.
_LAB = "lab."


def quoted(value: str) -> str:
    """As a part of an option that QEMU takes apart at its commas."""
    return value.replace(",", ",,")


def disk(disk: Disk, name: str, device: bool = False) -> list[str]:
    """A virtio disk; `device`: its path is a block device."""
    protocol = _protocol(device)
    card = ["-device", f"virtio-blk-pci,drive={name}"]
    if disk.snapshot:
        # Only -drive makes the temporary overlay (in /var/tmp, unlinked at once) by itself. Its base is then
        # opened read-only.
        drive = f"if=none,id={name},format={disk.format},snapshot=on,read-only={_onoff(disk.readonly)}"
        return ["-drive", f"{drive},file.driver={protocol},file.filename={quoted(disk.path)}", *card]
    return [*_node(name, disk.path, disk.format, disk.readonly, protocol), *card]


def cdrom(path: str, device: bool = False) -> list[str]:
    """A CD on the machine's own AHCI, which every installer knows; firmware starts from disks first."""
    return [*_node("cdrom", path, "raw", True, _protocol(device)), "-device", "ide-cd,drive=cdrom"]


def seed(runtime_dir: str) -> list[str]:
    """cloud-init's seed. A disk and no CD: kernels of clouds know no AHCI, and a label is on either."""
    path = f"{runtime_dir}/{SEED}"
    return [*_node("seed", path, "raw", True), "-device", "virtio-blk-pci,drive=seed,serial=seed"]


def firmware(firmware: Firmware, runtime_dir: str) -> list[str]:
    """UEFI in flash memory. `-machine` has to name the nodes: pflash0=code,pflash1=variables."""
    return [
        *_node("code", firmware.code, "raw", True),
        *_node("variables", f"{runtime_dir}/{VARIABLES}", "raw", False),
    ]


def network(network: Network) -> list[str]:
    """A network card, or none. Its own boot ROM is left out: nobody starts from the network here."""
    if network.kind == "none":
        return ["-nic", "none"]
    if network.kind == "user":
        forwards = "".join(f",hostfwd={_forward(each)}" for each in network.forwards)
        return ["-netdev", f"user,id=user{forwards}", "-device", "virtio-net-pci,netdev=user,romfile="]
    name = _LAB + network.lab
    mac = f",mac={network.mac}" if network.mac else ""
    return ["-netdev", f"socket,id={name},fd=0", "-device", f"virtio-net-pci,netdev={name}{mac},romfile="]


def lab(netdev: str) -> str:
    """The lab that a -netdev of `network` leads to; empty if to none."""
    parts = netdev.split(",")
    name = parts[1].removeprefix("id=") if parts[0] == "socket" and len(parts) > 1 else ""
    return name.removeprefix(_LAB) if name.startswith(_LAB) else ""


def vnc(runtime_dir: str) -> list[str]:
    """A screen for VNC on a unix socket, with a pointer that needs no grabbing."""
    usb = ["-device", "qemu-xhci", "-device", "usb-tablet"]
    return ["-vnc", f"unix:{quoted(runtime_dir)}/{VNC}", "-device", "VGA", *usb]


def _forward(forward: Forward) -> str:
    return f"{forward.protocol}:{forward.host_address}:{forward.host_port}-:{forward.guest_port}"


def _protocol(device: bool) -> str:
    # Each refuses what is for the other.
    return "host_device" if device else "file"


def _node(name: str, path: str, kind: str, readonly: bool, protocol: str = "file") -> Sequence[str]:
    node = {
        "driver": kind,
        "node-name": name,
        "read-only": readonly,
        "file": {"driver": protocol, "filename": path, "read-only": readonly},
    }
    return ["-blockdev", json.dumps(node)]


def _onoff(value: bool) -> str:
    return "on" if value else "off"
