# SPDX-License-Identifier: LGPL-2.1-or-later
"""The two initramfs: the machine's, which finds the disk, and the guest's, which tells its CPU's flags."""

from __future__ import annotations

import lzma
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.vm import cpio

_BAKED = Path(__file__).parent / "baked"
VIRTIO = ("virtio_pci", "virtio_blk", "ext4")
IDE = ("ata_piix", "sd_mod", "ext4")
_GUEST_MODULES = ("button", "evdev")


def for_machine(system: Path, kernel: str, names: Sequence[str] = VIRTIO) -> bytes:
    """Build it from the busybox and the modules `names` of the tree `system`, for the release `kernel`."""
    modules = _modules(system, kernel, names)
    # insmod in the archive's order: the name carries it.
    numbered = [(f"{number:02d}-{_plain_name(path)}", path) for number, path in enumerate(modules)]
    return cpio.archive(
        [
            *_base(system),
            cpio.directory("modules"),
            *(cpio.regular(f"modules/{name}", _plain(path)) for name, path in numbered),
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
                cpio.regular(f"modules/{_plain_name(path)}", _plain(path))
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


def _plain_name(module: Path) -> str:
    return module.name.removesuffix(".xz")


def _plain(module: Path) -> bytes:
    """Return a module's bytes; Debian 13 compresses them, which busybox's insmod does not undo."""
    data = module.read_bytes()
    return lzma.decompress(data) if module.suffix == ".xz" else data


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
