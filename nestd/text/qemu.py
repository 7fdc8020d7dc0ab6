# SPDX-License-Identifier: LGPL-2.1-or-later
"""QEMU's argument list from a guest's specification, and back.

Source: qemu-system-x86_64(1), QEMU's docs/interop/qemu-storage-daemon and qapi/block-core.json. Nothing here
is ever read by a shell, and whatever comes from outside stands where QEMU does not parse it: in an
argument of its own, in JSON, or with its commas doubled (QEMU's own way to quote them).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from nestd.guestmodel import Disk, GuestSpec
from nestd.model import Extension

_MIB = 1 << 20
# dump-guest-core=off: a core dump of QEMU does not carry the guest's memory.
_MACHINE = "q35,accel=kvm,usb=off,vmport=off,dump-guest-core=off"
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


class Shape(NamedTuple):
    """What an argument list says about its guest: `cpu` as given to -cpu, `memory` in bytes."""

    cpu: str
    memory: int
    vcpus: int


def arguments(spec: GuestSpec, extension: Extension, runtime_dir: str, console_log: str) -> list[str]:
    """What follows the program's name.

    The guest is created but does not run (-S) until QMP says `cont`. `runtime_dir` gets the
    sockets `qmp` and `console`; `console_log` gets what the guest writes to its serial console, from
    the first byte on, whether somebody is attached or not. `extension` is the CPU's.
    """
    argv = ["-name", f"guest={spec.name}", "-nodefaults", "-no-user-config", "-sandbox", _SANDBOX]
    argv += ["-msg", "timestamp=off", "-machine", _MACHINE, "-cpu", cpu(spec, extension)]
    argv += ["-m", f"{_mebibytes(spec.memory)}M", "-smp", str(spec.vcpus), "-S"]
    argv += ["-display", "none", "-nic", "none"]
    argv += ["-chardev", f"socket,id=qmp,path={_quoted(runtime_dir)}/qmp,server=on,wait=off"]
    argv += ["-mon", "chardev=qmp,mode=control"]
    console = f"socket,id=console,path={_quoted(runtime_dir)}/console,server=on,wait=off"
    argv += ["-chardev", f"{console},logfile={_quoted(console_log)},logappend=off"]
    argv += ["-serial", "chardev:console"]
    for number, disk in enumerate(spec.disks):
        argv += _disk(disk, f"disk{number}")
    for option, value in (("-kernel", spec.kernel), ("-initrd", spec.initrd), ("-append", spec.append)):
        argv += [option, value] if value else []
    return argv


def cpu(spec: GuestSpec, extension: Extension) -> str:
    """The value of -cpu. `host` carries the extension by itself; a model gets it, unless told otherwise."""
    features = list(spec.cpu_features)
    named = {feature[1:] for feature in features}
    if spec.cpu != "host" and extension is not Extension.NONE and extension.value not in named:
        features.insert(0, f"+{extension.value}")
    return ",".join([spec.cpu, *features])


def shape(argv: Sequence[str]) -> Shape | None:
    """Read an argument list of `arguments` back; None if it is none."""
    values = dict(pairwise(argv))
    memory = re.fullmatch(r"([0-9]+)M", values.get("-m", ""))
    vcpus = re.fullmatch(r"[0-9]+", values.get("-smp", ""))
    if memory is None or vcpus is None or "-cpu" not in values:
        return None
    return Shape(values["-cpu"], int(memory[1]) * _MIB, int(vcpus[0]))


def _disk(disk: Disk, name: str) -> list[str]:
    device = ["-device", f"virtio-blk-pci,drive={name}"]
    if disk.snapshot:
        # Only -drive makes the temporary overlay (in /var/tmp, unlinked at once) by itself. Its base is then
        # opened read-only.
        drive = f"if=none,id={name},format={disk.format},snapshot=on,read-only={_onoff(disk.readonly)}"
        return ["-drive", f"{drive},file.driver=file,file.filename={_quoted(disk.path)}", *device]
    node = {
        "driver": disk.format,
        "node-name": name,
        "read-only": disk.readonly,
        "file": {"driver": "file", "filename": disk.path, "read-only": disk.readonly},
    }
    return ["-blockdev", json.dumps(node), *device]


def _mebibytes(size: int) -> int:
    return -(-size // _MIB)


def _quoted(value: str) -> str:
    return value.replace(",", ",,")


def _onoff(value: bool) -> str:
    return "on" if value else "off"
