# SPDX-License-Identifier: LGPL-2.1-or-later
"""The two initramfs: the machine's, which finds the disk, and the guest's, which tells its CPU's flags."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.vm import cpio

_BAKED = Path(__file__).parent / "baked"
_MACHINE_MODULES = ("virtio_pci", "virtio_blk", "ext4")
_GUEST_MODULES = ("button", "evdev")


def for_machine(system: Path, kernel: str) -> bytes:
    """Build it from the busybox and the modules of the tree `system`, for the release `kernel`."""
    modules = _modules(system, kernel, _MACHINE_MODULES)
    # insmod in the archive's order: the name carries it.
    numbered = [(f"{number:02d}-{path.name}", path) for number, path in enumerate(modules)]
    return cpio.archive(
        [
            *_base(system),
            cpio.directory("modules"),
            *(cpio.regular(f"modules/{name}", path.read_bytes()) for name, path in numbered),
            cpio.regular("init", (_BAKED / "machine-init").read_bytes(), 0o755),
        ]
    )


def for_guest(system: Path, kernel: str) -> bytes:
    """The same for the guest that the tests start inside the machine."""
    return cpio.archive(
        [
            *_base(system),
            cpio.directory("modules"),
            *(
                cpio.regular(f"modules/{path.name}", path.read_bytes())
                for path in _modules(system, kernel, _GUEST_MODULES)
            ),
            cpio.directory("etc"),
            cpio.directory("etc/acpi"),
            cpio.directory("etc/acpi/PWRF"),
            cpio.regular("etc/acpi/PWRF/00000080", (_BAKED / "guest-power").read_bytes(), 0o755),
            cpio.directory("var"),
            cpio.directory("var/run"),
            cpio.regular("init", (_BAKED / "guest-init").read_bytes(), 0o755),
        ]
    )


def _base(system: Path) -> Iterator[cpio.Entry]:
    yield cpio.directory("bin")
    yield cpio.regular("bin/busybox", (system / "usr/bin/busybox").read_bytes(), 0o755)
    yield cpio.symlink("bin/sh", "busybox")
    yield cpio.directory("dev")
    # The kernel opens it for /init's messages before there is a devtmpfs.
    yield cpio.character_device("dev/console", 5, 1)


def _modules(system: Path, kernel: str, names: Sequence[str]) -> list[Path]:
    """Return the files of `names` and of all they need, in the order to insert; what is built in has none."""
    found: dict[Path, None] = {}
    for name in names:
        command: list[str | Path] = [
            "chroot",
            system,
            "modprobe",
            "--show-depends",
            "--set-version",
            kernel,
            name,
        ]
        for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines():
            verb, _, path = line.partition(" ")
            if verb == "insmod":
                found[system / path.split()[0].removeprefix("/")] = None
    return list(found)
