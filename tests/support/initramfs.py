# SPDX-License-Identifier: LGPL-2.1-or-later
"""Initramfs images, and the programs that make them (tests/support/initramfs_makers.py) on a tree."""

from __future__ import annotations

import shutil
from pathlib import Path

from nestd.host.commands import Commands
from nestd.host.machine import Host
from tests.nesting.machines import Machine
from tests.support.tree import RELEASE, Tree
from tests.vm import cpio

# The real tools that look into an image, and what they need.
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
MAKERS = ("update-initramfs", "dracut", "mkinitcpio", "kernel-install", "cp", "mv", "rm", "sync")
# What each maker leaves in its images.
MARKS = {
    "initramfs-tools": "conf/initramfs.conf",
    "dracut": "usr/lib/dracut/modules.txt",
    "mkinitcpio": "buildconfig",
    "": "init",
}
DRIVER = f"usr/lib/modules/{RELEASE}/kernel/arch/x86/kvm/kvm-amd.ko.xz"


def packed(files: dict[str, str]) -> bytes:
    """An image with these files, whose folders come before them."""
    folders = {str(above) for name in files for above in Path(name).parents if str(above) != "."}
    return cpio.archive(
        [
            *(cpio.directory(name) for name in sorted(folders)),
            *(cpio.regular(name, text.encode("utf-8", "surrogateescape")) for name, text in files.items()),
        ]
    )


def image(tree: Tree, path: str, maker: str, files: dict[str, str]) -> None:
    """Put an image into the tree: what `maker` leaves in it, and `files`."""
    tree.path(path).parent.mkdir(parents=True, exist_ok=True)
    tree.path(path).write_bytes(packed({MARKS[maker]: "x", **files}))


def host(tree: Tree, makers: tuple[str, ...] = MAKERS, carried: tuple[str, ...] = ("kvm-amd", "kvm")) -> Host:
    """The machine, with these programs, and the real ones that look into images.

    `carried` are the modules that the makers put into an image.
    """
    machine = Machine.of(tree)
    tree.write("/.kernel/carried", "\n".join(carried))
    folder = machine.tools.folder
    for name in makers:
        shutil.copy(Path(__file__).with_name("initramfs_makers.py"), folder / name)
        (folder / name).chmod(0o755)
    # Programs that this machine happens to have must not be found where the test has taken them away.
    hidden = folder.with_name("real")
    if not hidden.exists():
        hidden.mkdir()
        for place in PATH.split(":"):
            for real in Path(place).iterdir():
                if real.name not in MAKERS and not (hidden / real.name).is_symlink():
                    (hidden / real.name).symlink_to(real)
    return machine.host._replace(commands=Commands(f"{folder}:{hidden}"))
