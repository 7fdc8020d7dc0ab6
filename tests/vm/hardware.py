# SPDX-License-Identifier: LGPL-2.1-or-later
"""The emulated machine as QEMU's arguments. Always TCG: the host's /dev/kvm may hang a stock kernel."""

from __future__ import annotations

import functools
import hashlib
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.vm import sources
from tests.vm.problem import VmError

EMULATOR = "qemu-system-x86_64"
AGENT_PORT = "org.nestd.agent"
PUSH_DISK_BYTES = 1 << 30
# What makes emulation quick, and no reboot after a panic: it must be seen, not slept through.
ARGUMENTS = "console=ttyS0 mitigations=off nokaslr tsc=reliable random.trust_cpu=on panic=0"
_BASE_APPEND = f"root=/dev/vda rw quiet {ARGUMENTS} systemd.show_status=auto"


@dataclass(frozen=True, slots=True)
class Hardware:
    """What can differ between machines; `append` is added to the kernel's command line.

    With `ssh` it has a network card that leads nowhere, and Machine.ssh_port leads to its port 22.
    One CPU: with two, QEMU 7.2 now and then goes on running code that the other one has patched. KVM patches
    its static keys when a guest starts; the CPU then loops in the breakpoint for ever ("soft lockup").
    """

    memory_mib: int = 2048
    cpus: int = 1
    cpu: str = "EPYC"
    append: str = ""
    ssh: bool = False

    @property
    def command_line(self) -> str:
        return f"{_BASE_APPEND} {self.append}".strip()


def suited(name: str) -> Hardware:
    """Return the hardware that an image of this name runs on.

    Debian 13's kernel panics now and then with QEMU 7.2's cmpxchg16b; without that instruction never.
    """
    return Hardware(cpu="EPYC,-cx16") if name == sources.TRIXIE else Hardware()


@dataclass(frozen=True, slots=True)
class Pflash:
    """UEFI firmware: its code, and its variables, which are written (a qcow2: a snapshot keeps them, too)."""

    code: Path
    variables: Path

    @classmethod
    def below(cls, folder: Path) -> Pflash:
        return cls(folder / "firmware.fd", folder / "variables.qcow2")


@dataclass(frozen=True, slots=True)
class Files:
    """Host paths: the disk (qcow2, written), the kernel, its initramfs, the raw disk things are pushed on.

    Without a kernel the machine boots from its disk; without a pflash its firmware is SeaBIOS.
    """

    disk: Path
    kernel: Path | None
    initrd: Path | None
    push: Path
    pflash: Pflash | None = None


@dataclass(frozen=True, slots=True)
class Wires:
    """File descriptors of QEMU's ends of socket pairs."""

    qmp: int
    serial: int
    agent: int
    shell: int


def arguments(hardware: Hardware, files: Files, wires: Wires, snapshot: str | None = None) -> list[str]:
    """Return the whole command; with `snapshot` the machine goes on from there instead of booting."""
    command = [EMULATOR, "-name", "nestd-vm", "-no-user-config", "-nodefaults"]
    command += ["-accel", "tcg,thread=multi,tb-size=512", "-machine", "q35,usb=off", "-cpu", hardware.cpu]
    command += ["-smp", str(hardware.cpus), "-m", f"{hardware.memory_mib}M"]
    command += ["-display", "none", "-vga", "none", "-nic", "none", "-rtc", "base=utc"]
    command += ["-kernel", str(files.kernel), "-append", hardware.command_line] if files.kernel else []
    command += ["-initrd", str(files.initrd)] if files.initrd else []
    command += _firmware(files.pflash) if files.pflash else []
    # No fsync on the host for the guest's flushes: only a crash of the host could tell the difference.
    command += ["-drive", f"file={files.disk},if=none,id=root,format=qcow2,cache=unsafe,discard=unmap"]
    command += ["-device", f"virtio-blk-pci,drive=root{'' if files.kernel else ',bootindex=0'}"]
    # Read-only, or savevm would refuse; the host writes behind QEMU's back and the guest reads it O_DIRECT.
    command += ["-drive", f"file={files.push},if=none,id=push,format=raw,readonly=on,file.locking=off"]
    command += ["-device", "virtio-blk-pci,drive=push,serial=push"]
    command += ["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"]
    command += [*_socket("qmp", wires.qmp), "-mon", "chardev=qmp,mode=control"]
    command += [*_socket("serial", wires.serial), "-serial", "chardev:serial"]
    command += [*_socket("agent", wires.agent), "-device", f"virtserialport,chardev=agent,name={AGENT_PORT}"]
    command += [*_socket("shell", wires.shell), "-device", "virtconsole,chardev=shell"]
    command += _network() if hardware.ssh else []
    if snapshot is not None:
        command += ["-loadvm", snapshot]
    return command


def _network() -> list[str]:
    # Port 0: the host gives a free one, so that nobody can take it meanwhile.
    net = "user,id=net,restrict=on,ipv6=off,hostfwd=tcp:127.0.0.1:0-:22"
    return ["-netdev", net, "-device", "virtio-net-pci,netdev=net,romfile="]


def _firmware(pflash: Pflash) -> list[str]:
    code = f"file={pflash.code},if=pflash,unit=0,format=raw,readonly=on"
    variables = f"file={pflash.variables},if=pflash,unit=1,format=qcow2,cache=unsafe"
    return ["-drive", code, "-drive", variables]


def _socket(name: str, fd: int) -> list[str]:
    return ["-chardev", f"socket,id={name},fd={fd}"]


@functools.cache
def emulator_version() -> str:
    """Return QEMU's version line; raises VmError if there is no QEMU."""
    if shutil.which(EMULATOR) is None:
        raise VmError(
            f"{EMULATOR} is not installed", "Run tests/setup, or `apt-get install qemu-system-x86`."
        )
    done = subprocess.run([EMULATOR, "--version"], check=True, capture_output=True, text=True)
    return done.stdout.splitlines()[0]


def fingerprint(hardware: Hardware, files: Files) -> str:
    """Return a hash of all that a memory snapshot depends on, except what is in its files."""
    words = [emulator_version(), *arguments(hardware, files, Wires(0, 0, 0, 0))]
    return hashlib.sha256("\0".join(words).encode()).hexdigest()
