# SPDX-License-Identifier: LGPL-2.1-or-later
"""How a machine boots from its own disk: firmware, partitions, and the real tools that make it bootable."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.vm import builder, cache
from tests.vm.hardware import ARGUMENTS, Files, Hardware, Pflash
from tests.vm.machine import Machine
from tests.vm.problem import BuildError, VmError
from tests.vm.progress import Progress

_BAKED = Path(__file__).parent / "baked/chains"
_MIB = 1 << 20
_OVMF = Path("/usr/share/OVMF")
_CODE, _VARIABLES = "OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"


@dataclass(frozen=True, slots=True)
class Chain:
    """A boot chain: the packages it brings, its partition table as sfdisk(8) reads it, where the root is.

    `root` is the number of the root's partition, which begins at `root_mib`. What makes the disk bootable is
    baked/chains/NAME, of which one part runs in the tree, one in the machine.
    """

    name: str
    packages: tuple[str, ...]
    table: str
    root: int
    root_mib: int
    uefi: bool = False

    @property
    def script(self) -> Path:
        return _BAKED / self.name


CHAINS = {
    chain.name: chain
    for chain in (
        Chain(
            "grub",
            ("grub-pc", "initramfs-tools", "zstd"),
            "label: dos\nstart=1MiB, type=83, bootable\n",
            root=1,
            root_mib=1,
        ),
        Chain(
            "systemd-boot",
            ("systemd-boot", "dracut", "dosfstools", "zstd"),
            "label: gpt\nstart=1MiB, size=255MiB, type=uefi\nstart=256MiB, type=linux\n",
            root=2,
            root_mib=256,
            uefi=True,
        ),
    )
}


def text(chain: Chain) -> str:
    """Return all that an image depends on besides its packages: scripts, and the firmware's bytes."""
    firmware = [(_OVMF / name).read_bytes().hex() for name in (_CODE, _VARIABLES)] if chain.uefi else []
    return "\0".join([repr(chain), chain.script.read_text(), *firmware])


def check_host(chain: Chain) -> None:
    """Raise VmError if the host has not what this chain needs."""
    if shutil.which("sfdisk") is None:
        raise VmError("sfdisk: not installed", "Run tests/setup, or `apt-get install fdisk`.")
    if chain.uefi and not (_OVMF / _CODE).exists():
        raise VmError(f"{_OVMF / _CODE} is not there", "Run tests/setup, or `apt-get install ovmf`.")


def partition(chain: Chain, raw: Path) -> list[str | Path]:
    """Write the partition table to the disk; returns mke2fs' words for the root in it."""
    done = subprocess.run(
        ["sfdisk", "--quiet", raw], input=chain.table, text=True, capture_output=True, check=False
    )
    if done.returncode != 0:
        raise BuildError(f"sfdisk ended with {done.returncode}: {done.stderr}")
    # A GPT's copy is in the disk's last sectors.
    size = raw.stat().st_size // _MIB - chain.root_mib - 1
    return ["-E", f"offset={chain.root_mib * _MIB}", raw, f"{size}M"]


def prepare(chain: Chain, system: Path, release: str, log: Path) -> None:
    """Do in the tree `system` what needs no machine: configuration, the initramfs of the kernel `release`."""
    (system / "run/arguments").write_text(f"{ARGUMENTS}\n")
    shutil.copy(chain.script, system / "run")
    inside = 'mount -t proc proc "$1/proc" && mount -t sysfs sysfs "$1/sys" && exec chroot "$@"'
    builder.run(["sh", "-c", inside, "sh", system, "bash", f"/run/{chain.name}", "chroot", release], log)
    (system / "run/arguments").unlink()
    (system / "run" / chain.name).unlink()


def make_bootable(chain: Chain, building: Path, release: str, progress: Progress) -> None:
    """Start the machine once with a kernel from outside, to run what installs its boot loader.

    `building` has disk.qcow2, vmlinuz and initrd.img; with UEFI it gets the firmware, too.
    """
    pflash = _firmware(building) if chain.uefi else None
    push = building / "push.raw"
    files = Files(building / "disk.qcow2", building / "vmlinuz", building / "initrd.img", push, pflash)
    config = Hardware(append=f"root=/dev/vda{chain.root}")
    with Machine(files, building, config, progress) as machine:
        progress(f"installing the boot loader, {chain.name}")
        machine.push(chain.script, to="/run/chain")
        machine.run(["bash", f"/run/chain/{chain.name}", "machine", release], timeout=600)
        machine.switch_off()
    for left in (push, machine.log, machine.log.with_name("qemu.log")):
        left.unlink(missing_ok=True)


def _firmware(building: Path) -> Pflash:
    """Copy the firmware; its variables into a qcow2, because a snapshot keeps them, too."""
    pflash = Pflash.below(building)
    cache.copy(_OVMF / _CODE, pflash.code)
    subprocess.run(
        ["qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", _OVMF / _VARIABLES, pflash.variables],
        check=True,
    )
    return pflash
