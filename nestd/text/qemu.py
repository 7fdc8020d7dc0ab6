# SPDX-License-Identifier: LGPL-2.1-or-later
"""QEMU's argument list from a guest's specification, and back.

Source: qemu-system-x86_64(1), QEMU's docs/interop/qemu-storage-daemon and qapi/block-core.json. Nothing here
is ever read by a shell, and whatever comes from outside stands where QEMU does not parse it: in an
argument of its own, in JSON, or with its commas doubled (QEMU's own way to quote them).
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from itertools import pairwise
from typing import NamedTuple

from nestd.guestmodel import Firmware, GuestSpec
from nestd.model import Extension
from nestd.text import qemudevices
from nestd.text.qemudevices import quoted

_MIB = 1 << 20
# dump-guest-core=off: a core dump of QEMU does not carry the guest's memory.
_MACHINE = "q35,accel=kvm,usb=off,vmport=off,dump-guest-core=off"
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


class Shape(NamedTuple):
    """What an argument list says about its guest: `cpu` as given to -cpu, `memory` in bytes.

    `vnc`: it has a screen for VNC; `lab`: the lab that its network card is plugged into, empty for none.
    """

    cpu: str
    memory: int
    vcpus: int
    vnc: bool = False
    lab: str = ""


def arguments(
    spec: GuestSpec,
    extension: Extension,
    runtime_dir: str,
    console_log: str,
    firmware: Firmware | None = None,
    devices: Container[str] = (),
) -> list[str]:
    """What follows the program's name.

    The guest is created but does not run (-S) until QMP says `cont`. `runtime_dir` gets the
    sockets `qmp`, `console` and `vnc`, and has what guests/prepare.py puts there; `console_log` gets what the
    guest writes to its serial console, from the first byte on, whether somebody is attached or not.
    `extension` is the CPU's; `firmware` is given if it is to be UEFI. A lab's segment is file descriptor 0.
    `devices` are the paths, of disks and the CD, that are block devices.
    """
    flash = ",pflash0=code,pflash1=variables" if firmware else ""
    argv = ["-name", f"guest={spec.name}", "-nodefaults", "-no-user-config", "-sandbox", _SANDBOX]
    argv += ["-msg", "timestamp=off", "-machine", _MACHINE + flash, "-cpu", cpu(spec, extension)]
    argv += ["-m", f"{_mebibytes(spec.memory)}M", "-smp", str(spec.vcpus), "-S"]
    argv += ["-display", "none", *qemudevices.network(spec.network)]
    argv += qemudevices.vnc(runtime_dir) if spec.display == "vnc" else []
    argv += ["-chardev", f"socket,id=qmp,path={quoted(runtime_dir)}/qmp,server=on,wait=off"]
    argv += ["-mon", "chardev=qmp,mode=control"]
    console = f"socket,id=console,path={quoted(runtime_dir)}/console,server=on,wait=off"
    argv += ["-chardev", f"{console},logfile={quoted(console_log)},logappend=off"]
    argv += ["-serial", "chardev:console"]
    for number, disk in enumerate(spec.disks):
        argv += qemudevices.disk(disk, f"disk{number}", disk.path in devices)
    argv += qemudevices.cdrom(spec.cdrom, spec.cdrom in devices) if spec.cdrom else []
    argv += qemudevices.seed(runtime_dir) if spec.user_data else []
    argv += qemudevices.firmware(firmware, runtime_dir) if firmware else []
    for option, value in (("-kernel", spec.kernel), ("-initrd", spec.initrd), ("-append", spec.append)):
        argv += [option, value] if value else []
    return [*argv, *spec.extra_args]


def cpu(spec: GuestSpec, extension: Extension) -> str:
    """The value of -cpu. `host` carries the extension by itself; a model gets it, unless told otherwise."""
    features = list(spec.cpu_features)
    named = {feature[1:] for feature in features}
    if spec.cpu != "host" and extension is not Extension.NONE and extension.value not in named:
        features.insert(0, f"+{extension.value}")
    return ",".join([spec.cpu, *features])


def shape_of(spec: GuestSpec, extension: Extension) -> Shape:
    """What `shape` reads from the arguments of this specification."""
    memory = _mebibytes(spec.memory) * _MIB
    return Shape(cpu(spec, extension), memory, spec.vcpus, spec.display == "vnc", spec.network.lab)


def shape(argv: Sequence[str]) -> Shape | None:
    """Read an argument list of `arguments` back; None if it is none."""
    # Up to the first of these all words are nestd's own; behind it stand the caller's, whatever they look
    # like.
    own = argv[: argv.index("-chardev")] if "-chardev" in argv else ()
    values = dict(pairwise(own))
    memory = re.fullmatch(r"([0-9]+)M", values.get("-m", ""))
    vcpus = re.fullmatch(r"[0-9]+", values.get("-smp", ""))
    if memory is None or vcpus is None or "-cpu" not in values:
        return None
    lab = qemudevices.lab(values.get("-netdev", ""))
    return Shape(values["-cpu"], int(memory[1]) * _MIB, int(vcpus[0]), "-vnc" in values, lab)


def _mebibytes(size: int) -> int:
    return -(-size // _MIB)
