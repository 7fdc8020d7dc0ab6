# SPDX-License-Identifier: LGPL-2.1-or-later
"""Systems of Fedora and RHEL as trees: boot loader entries, and the files beside them.

Built, not captured: after grub2's 20-grub.install (mkbls), anaconda's /etc/default/grub, and what `grubby
--info=ALL` shows on EL 9.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from tests.nesting.machines import Machine
from tests.support.tree import CAPTURES, Tree

MACHINE_ID = "3f1c2d8b6f5e4d0f9b0a6f0b7c1d2e3f"
ENTRIES = "/boot/loader/entries"


class Release(NamedTuple):
    """A distribution's release: its kernels, the newest first, and their arguments."""

    title: str
    kernels: tuple[str, ...]
    arguments: str
    boot: str  # where GRUB finds the kernels
    more: str


FEDORA_40 = Release(
    "Fedora Linux ({kernel}) 40 (Workstation Edition)",
    ("6.11.4-201.fc40.x86_64", "6.8.5-301.fc40.x86_64"),
    "root=UUID=6d8d5e6f-5a53-4d5c-9f3b-0d6c8f2f3f2a ro rootflags=subvol=root rhgb quiet",
    "",
    "grub_users $grub_users\ngrub_arg --unrestricted\ngrub_class fedora\n",
)
FEDORA_41 = FEDORA_40._replace(
    title="Fedora Linux ({kernel}) 41 (Server Edition)",
    kernels=("6.12.4-200.fc41.x86_64", "6.11.4-301.fc41.x86_64"),
    arguments="root=/dev/mapper/fedora-root ro rd.lvm.lv=fedora/root console=tty0 console=ttyS0,115200",
)
RHEL_9 = Release(
    "Red Hat Enterprise Linux ({kernel}) 9.4 (Plow)",
    ("5.14.0-427.13.1.el9_4.x86_64", "5.14.0-362.8.1.el9_3.x86_64"),
    "root=/dev/mapper/rhel-root ro crashkernel=1G-4G:192M,4G-64G:256M,64G-:512M resume=/dev/mapper/rhel-swap "
    "rd.lvm.lv=rhel/root rd.lvm.lv=rhel/swap rhgb quiet $tuned_params",
    "",
    "grub_users $grub_users\ngrub_arg --unrestricted\ngrub_class rhel\n",
)
# As an image of a cloud has it: /boot is a folder of the root.
WITHOUT_BOOT = RHEL_9._replace(boot="/boot")
RELEASES = (FEDORA_40, FEDORA_41, RHEL_9, WITHOUT_BOOT)


def entry(release: Release, kernel: str, arguments: str | None = None) -> str:
    """The text of a kernel's entry."""
    tuned = " $tuned_initrd" if "$tuned_params" in release.arguments and "rescue" not in kernel else ""
    return (
        f"title {release.title.format(kernel=kernel)}\nversion {kernel}\n"
        f"linux {release.boot}/vmlinuz-{kernel}\n"
        f"initrd {release.boot}/initramfs-{kernel}.img{tuned}\n"
        f"options {release.arguments if arguments is None else arguments}\n{release.more}"
    )


def path(kernel: str) -> str:
    """Where a kernel's entry is."""
    return f"{ENTRIES}/{MACHINE_ID}-{kernel}.conf"


def installed(top: Path, release: Release) -> Machine:
    """The system, GRUB's configuration included, with a rescue kernel, and grubby."""
    tree = Tree(top).amd().module("kvm_amd")
    tree.write("/boot/grub2/grub.cfg", (CAPTURES / "grub-fedora.cfg").read_text())
    tree.write("/etc/default/grub", defaults(release.arguments.partition(" ro ")[2]))
    rescue = f"0-rescue-{MACHINE_ID}"
    tree.write(f"{ENTRIES}/{MACHINE_ID}-0-rescue.conf", entry(release, rescue))
    for kernel in release.kernels:
        tree.write(path(kernel), entry(release, kernel))
    machine = Machine.of(tree)
    program(machine, "grubby")
    for name in ("sh", "cp", "mv", "rm", "sync"):
        (machine.tools.folder / name).symlink_to(f"/usr/bin/{name}")
    return machine


def defaults(arguments: str) -> str:
    """/etc/default/grub, as anaconda writes it."""
    return (
        "GRUB_TIMEOUT=5\nGRUB_DISTRIBUTOR=\"$(sed 's, release .*$,,g' /etc/system-release)\"\n"
        'GRUB_DEFAULT=saved\nGRUB_DISABLE_SUBMENU=true\nGRUB_TERMINAL_OUTPUT="console"\n'
        f'GRUB_CMDLINE_LINUX="{arguments}"\nGRUB_DISABLE_RECOVERY="true"\nGRUB_ENABLE_BLSCFG=true\n'
    )


def program(machine: Machine, name: str) -> None:
    """Put the fake of that name where nestd finds programs."""
    source = Path(__file__).parents[2] / f"support/fake{name.replace('-', '')}.py"
    shutil.copy(source, machine.tools.folder / name)
    (machine.tools.folder / name).chmod(0o755)


def files(machine: Machine) -> dict[str, str]:
    """All of /boot and /etc, with its text."""
    top = machine.tree.top
    found = [one for name in ("boot", "etc") for one in sorted((top / name).rglob("*")) if one.is_file()]
    return {str(one.relative_to(top)): one.read_text() for one in found}
