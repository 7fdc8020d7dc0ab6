#!/usr/bin/python3 -I
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The makers and kernel-install, and cp, mv, rm, sync, acting on a tree (tests/support/tree.py).

tests/support/initramfs.py copies this file into TREE/.kernel/bin under their names. What each puts into an
image and where: update-initramfs and mkinitramfs 0.142, dracut.sh 059 with modules.d/90kernel-modules,
mkinitcpio 39 with install/modconf, systemd 252's 90-loaderentry.install.
tests/nesting/test_real_makers.py holds the first two against the real ones.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

NAME = Path(sys.argv[0]).name
TOP = Path(sys.argv[0]).parents[2]
KERNEL = TOP / ".kernel"


def fail(words: str, code: int = 1) -> NoReturn:
    print(f"{NAME}: {words}", file=sys.stderr)
    sys.exit(code)


def here(path: str) -> Path:
    return TOP / path.lstrip("/")


def text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def make(
    target: Path, release: str, mark: str, folders: tuple[str, ...], extra: tuple[Path, ...] = ()
) -> None:
    """An image with the modules of /.kernel/carried and modprobe.d's files of `folders`."""
    if not (TOP / "lib/modules" / release).is_dir():
        fail(f"{release}: no such kernel")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / mark).parent.mkdir(parents=True, exist_ok=True)
        (folder / mark).write_text(release)
        modules = folder / "usr/lib/modules" / release / "kernel/arch/x86/kvm"
        for module in text(KERNEL / "carried").split():
            modules.mkdir(parents=True, exist_ok=True)
            (modules / f"{module}.ko.xz").write_text("")
        copied = [one for at in folders for one in sorted((TOP / at / "modprobe.d").glob("*.conf"))]
        for one in (*copied, *extra):
            inside = folder / one.relative_to(TOP)
            inside.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(one, inside)
        names = subprocess.run(
            ["find", ".", "-mindepth", "1", "-printf", "%P\\0"], cwd=folder, capture_output=True, check=True
        )
        command = ["cpio", "-0", "-o", "-H", "newc", "--quiet"]
        archive = subprocess.run(command, cwd=folder, input=names.stdout, capture_output=True, check=True)
        packed = subprocess.run(["gzip"], input=archive.stdout, capture_output=True, check=True)
        new = target.with_name(f"{target.name}.making")
        new.write_bytes(packed.stdout)
        new.replace(target)


def update_initramfs(arguments: list[str]) -> None:
    if arguments[:2] != ["-u", "-k"]:
        fail("usage", 2)
    release = arguments[2]
    if "update_initramfs=no" in text(here("/etc/initramfs-tools/update-initramfs.conf")).split():
        print("update-initramfs: Not updating initramfs.")
        return
    target = here(f"/boot/initrd.img-{release}")
    make(target, release, "conf/initramfs.conf", ("etc", "lib"))
    bypassed = os.environ.get("KERNEL_INSTALL_BYPASS") == "1"
    if here("/etc/initramfs/post-update.d/systemd-boot").exists() and not bypassed:
        kernel_install(["add", release, f"/boot/vmlinuz-{release}", f"/boot/initrd.img-{release}"])


def dracut(arguments: list[str]) -> None:
    if arguments[0] != "-f":
        fail("Will not override existing initramfs without --force")
    said = text(here("/etc/dracut.conf"))
    for one in sorted(here("/etc/dracut.conf.d").glob("*.conf")):
        said += "\n" + text(one)
    chosen = re.findall(r'^hostonly="?(\w*)', said, re.MULTILINE)
    folders = ("etc", "lib", "usr/lib") if chosen and chosen[-1] == "yes" else ("lib", "usr/lib")
    wanted = [
        path
        for items in re.findall(r'^install_\w*items\+="([^"]*)"', said, re.MULTILINE)
        for path in items.split()
    ]
    extra = tuple(here(path) for path in wanted if here(path).exists())
    make(here(arguments[1]), arguments[2], "usr/lib/dracut/modules.txt", folders, extra)


def mkinitcpio(arguments: list[str]) -> None:
    folders = ("etc", "usr/lib") if "modconf" in text(here("/etc/mkinitcpio.conf")) else ()
    release = next(path.name for path in (TOP / "lib/modules").iterdir())
    if arguments[0] == "-p":
        for path in re.findall(
            r'^\w+_image="([^"]*)"', text(here(f"/etc/mkinitcpio.d/{arguments[1]}.preset")), re.MULTILINE
        ):
            make(here(path), release, "buildconfig", folders)
    elif arguments[0] == "-k" and arguments[2] == "-g":
        make(here(arguments[3]), arguments[1], "buildconfig", folders)
    else:
        fail("usage")


def kernel_install(arguments: list[str]) -> None:
    verb, release, _, initrd = arguments
    if verb != "add":
        fail("usage")
    token = text(here("/etc/machine-id")).strip()
    folder = here(f"/efi/{token}/{release}")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(here(initrd), folder / Path(initrd).name)


def main() -> None:
    with (KERNEL / "calls").open("a") as calls:
        calls.write(json.dumps([NAME, *sys.argv[1:]]) + "\n")
    if NAME in ("cp", "mv", "rm", "sync"):
        words = [str(here(word)) if word.startswith("/") else word for word in sys.argv[1:]]
        os.execv(f"/bin/{NAME}", [NAME, *words])
    {
        "update-initramfs": update_initramfs,
        "dracut": dracut,
        "mkinitcpio": mkinitcpio,
        "kernel-install": kernel_install,
    }[NAME](sys.argv[1:])


if __name__ == "__main__":
    main()
