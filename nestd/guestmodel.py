# SPDX-License-Identifier: LGPL-2.1-or-later
"""Values of guests that cross floors: what was asked for, what was got, what is known. Frozen.

The strings of the enumerations are the ones that cross the bus (data/org.nestd1.xml).
"""

from enum import StrEnum
from typing import NamedTuple


class GuestState(StrEnum):
    """The life of a guest. STARTING is reserved: a guest is known once it runs."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    EXITED = "exited"
    FAILED = "failed"


class Disk(NamedTuple):
    """One disk of a guest. `format` is never probed: a raw disk can pretend to be a qcow2."""

    path: str
    format: str
    readonly: bool = False
    snapshot: bool = False


class Forward(NamedTuple):
    """A port of this machine that leads to one of the guest. `protocol` is `tcp` or `udp`."""

    protocol: str
    host_address: str
    host_port: int
    guest_port: int


class Network(NamedTuple):
    """What a guest's network card is plugged into: `kind` is `none`, `user` (with `forwards`) or `lab`.

    `lab` is the lab's name, `mac` the card's address there, `address` the guest's own with its prefix length
    (`10.77.0.1/24`); both are empty but in a lab.
    """

    kind: str = "none"
    forwards: tuple[Forward, ...] = ()
    lab: str = ""
    mac: str = ""
    address: str = ""


class Overlay(NamedTuple):
    """A qcow2 image, made before the guest starts: what differs from `base`, which is never written."""

    path: str
    base: str
    format: str


class Firmware(NamedTuple):
    """UEFI for a guest: its code, which is only read, and the `variables` of which each guest gets a copy."""

    code: str
    variables: str


class GuestSpec(NamedTuple):
    """What Launch was asked for, after validation.

    `memory` is in bytes; `cpu` is `host` or a QEMU model, to which the extension is added;
    `user` is the name of the account that QEMU runs as. `firmware` is `bios` or `uefi`, `display` `none` or
    `vnc`. `user_data` is cloud-init's, empty for none. `extra_args` are handed to QEMU as they are.
    `overlays` are made anew before the start, in `state`, a folder below /var/lib that systemd makes for the
    user: they are a lab's, and no option of Launch; nor is `lifetime`, the seconds after which systemd ends
    the guest, 0 for never.
    """

    name: str
    user: str
    cpu: str = "host"
    cpu_features: tuple[str, ...] = ()
    memory: int = 512 << 20
    vcpus: int = 1
    disks: tuple[Disk, ...] = ()
    kernel: str = ""
    initrd: str = ""
    append: str = ""
    require_nesting: bool = True
    network: Network = Network()
    cdrom: str = ""
    firmware: str = "bios"
    display: str = "none"
    user_data: bytes = b""
    extra_args: tuple[str, ...] = ()
    overlays: tuple[Overlay, ...] = ()
    state: str = ""
    lifetime: int = 0


class VcpuVerdict(NamedTuple):
    """What a started vCPU really got, as QEMU tells it over QMP.

    `nesting` is the vCPU's own `vmx` or `svm` property; `dropped` are the flags that its model asks for and
    that KVM cannot give, `missing` these and what else this machine has and it did not get; by QEMU's names.
    """

    nesting: bool
    missing: tuple[str, ...]
    dropped: tuple[str, ...] = ()


class GuestRecord(NamedTuple):
    """A guest as the bus shows it; times are in microseconds since the epoch, 0 for not yet.

    `stopping` is empty, `power-button` (it was pressed, and until `stop_deadline` the guest may power itself
    off) or `unit` (systemd stops it, by force at `stop_deadline`). `result` is systemd's word for its end:
    empty while it runs, and where nobody saw it end. `last_words` are QEMU's, made printable. `vnc` is the
    socket of its screen, `lab` the lab that it is in; empty for none. `invocation` is its unit's
    INVOCATION_ID (systemd.exec(5)): what the journal knows this run of it by.
    """

    name: str
    state: GuestState
    owner: int
    unit: str
    pid: int
    cpu: str
    nesting: bool
    missing_flags: tuple[str, ...]
    memory: int
    vcpus: int
    started: int
    console: str
    exit_status: int = 0
    vnc: str = ""
    lab: str = ""
    stopping: str = ""
    stop_deadline: int = 0
    ended: int = 0
    result: str = ""
    last_words: tuple[str, ...] = ()
    invocation: str = ""

    @property
    def over(self) -> bool:
        """Whether it has ended, and this is only kept for those who ask."""
        return self.state in (GuestState.EXITED, GuestState.FAILED)
