# SPDX-License-Identifier: LGPL-2.1-or-later
"""Bochs, which emulates Intel's VMX: a GRUB disc that boots a kernel, a flat disk, two serial lines.

Debian's Bochs is built with its debugger, which waits for "c"; its only plain display draws on a terminal.
"""

from __future__ import annotations

import contextlib
import os
import pty
import select
import shutil
import subprocess
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.vm import console
from tests.vm.problem import BuildError, MachineDiedError, OutOfTimeError, VmError

# No APIC of a second CPU, and a timer that loses ticks beside the emulated counter.
COMMAND_LINE = (
    "root=/dev/sda rw console=ttyS0 quiet mitigations=off nokaslr nosmp no_timer_check random.trust_cpu=on "
    "panic=0 systemd.show_status=auto"
)
_CYLINDER = 16 * 63 * 512
_ROMS = Path("/usr/share/bochs")
_SETTINGS = """\
config_interface: textconfig
display_library: term
romimage: file={roms}/BIOS-bochs-latest
vgaromimage: file={roms}/VGABIOS-lgpl-latest
cpu: model={cpu}, count=1, ips=50000000, reset_on_triple_fault=0, ignore_bad_msrs=1
memory: guest={memory_mib}, host={memory_mib}
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=disk, mode=flat, path={folder}/disk.raw, cylinders={cylinders}, heads=16, spt=63
ata1: enabled=1, ioaddr1=0x170, ioaddr2=0x370, irq=15
ata1-master: type=cdrom, path={folder}/boot.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev={folder}/console.log
com2: enabled=1, mode=file, dev={folder}/line.log
clock: sync=none, time0=utc
log: {folder}/bochs.log
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
"""


@dataclass(frozen=True, slots=True)
class Board:
    """What can differ between machines; the CPU is one of `bochs-bin --help cpu`."""

    cpu: str = "corei7_haswell_4770"
    memory_mib: int = 1024


def host_packages() -> tuple[str, ...]:
    """Return the Debian packages that this needs on the host."""
    return ("bochs", "bochs-term", "bochsbios", "grub-common", "grub-pc-bin", "xorriso")


def check_host() -> None:
    """Raise VmError if something is not installed."""
    missing = [tool for tool in ("bochs-bin", "grub-mkrescue", "xorriso") if shutil.which(tool) is None]
    if missing:
        raise VmError(
            f"{', '.join(missing)}: not installed", f"`apt-get install {' '.join(host_packages())}`."
        )


def prepare(folder: Path, disk: Path, kernel: Path, initrd: Path, board: Board) -> None:
    """Put a machine into `folder`, from a whole qcow2 and a kernel; raises BuildError with a tool's words."""
    raw = folder / "disk.raw"
    _run(["qemu-img", "convert", "-q", "-O", "raw", disk, raw])
    cylinders = -(-raw.stat().st_size // _CYLINDER)
    with raw.open("r+b") as file:
        file.truncate(cylinders * _CYLINDER)
    tree = folder / "disc"
    (tree / "boot/grub").mkdir(parents=True)
    shutil.copy(kernel, tree / "boot/vmlinuz")
    shutil.copy(initrd, tree / "boot/initrd.img")
    (tree / "boot/grub/grub.cfg").write_text(
        f"set timeout=0\nlinux /boot/vmlinuz {COMMAND_LINE}\ninitrd /boot/initrd.img\nboot\n"
    )
    _run(["grub-mkrescue", "-d", "/usr/lib/grub/i386-pc", "-o", folder / "boot.iso", tree])
    settings = _SETTINGS.format(
        roms=_ROMS, cpu=board.cpu, memory_mib=board.memory_mib, folder=folder, cylinders=cylinders
    )
    (folder / "bochsrc").write_text(settings)
    (folder / "debugger").write_text("c\n")


def lines(folder: Path, limit: float) -> Generator[str]:
    """Switch the machine of `folder` on and give each line of its second serial port as it comes.

    It is off when the iterator is closed. `limit` is how many seconds it may be silent: then OutOfTimeError;
    MachineDiedError if Bochs ends.
    """
    line, log = folder / "line.log", folder / "console.log"
    line.touch()
    with _running(folder) as (process, screen), line.open("rb") as told:
        rest = b""
        end = time.monotonic() + limit
        while True:
            _draw(screen)
            rest += told.read()
            *whole, rest = rest.split(b"\n")
            for one in whole:
                yield one.decode(errors="replace").strip()
                end = time.monotonic() + limit
            if process.poll() is not None:
                raise MachineDiedError(f"Bochs is gone (status {process.returncode})\n{console.tail(log)}")
            if time.monotonic() > end:
                raise OutOfTimeError(f"Bochs' machine said nothing in {limit:.0f} s\n{console.tail(log)}")


@contextlib.contextmanager
def _running(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    screen, terminal = pty.openpty()
    command: list[str | Path] = ["bochs-bin", "-q", "-f", folder / "bochsrc", "-rc", folder / "debugger"]
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig=KILL", "--", *command],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm"},
        cwd=folder,
        start_new_session=True,
    )
    os.close(terminal)
    try:
        yield process, screen
    finally:
        process.kill()
        process.wait(timeout=60)
        os.close(screen)


def _draw(screen: int) -> None:
    """Take what Bochs draws, for up to a quarter of a second: it waits when nobody looks."""
    readable, _, _ = select.select([screen], [], [], 0.25)
    if readable:
        with contextlib.suppress(OSError):
            os.read(screen, 65536)


def _run(command: Sequence[str | Path]) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"{command[0]} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
