# SPDX-License-Identifier: LGPL-2.1-or-later
"""Looking into an initramfs: with the real initramfs-tools, and with stand-ins for what may go wrong."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from nestd.host import initramfs
from nestd.host.commands import Commands
from nestd.host.initramfs import Image
from nestd.host.root import Root
from tests.support import loop

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
IMAGE = "/boot/initrd.img-6.1"
DRIVER = "usr/lib/modules/6.1/kernel/arch/x86/kvm/kvm-amd.ko.xz"


def build(top: Path, files: dict[str, str], *, microcode: bool = False) -> None:
    """An image as initramfs-tools makes it: a gzipped cpio, perhaps with an uncompressed one before it."""

    def cpio(content: dict[str, str], folder: Path) -> bytes:
        for name, text in content.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        names = subprocess.run(["find", ".", "-print0"], cwd=folder, capture_output=True, check=True).stdout
        command = ["cpio", "-0", "-o", "-H", "newc", "--quiet"]
        return subprocess.run(command, cwd=folder, input=names, capture_output=True, check=True).stdout

    (top / "boot").mkdir(exist_ok=True)
    (top / "main").mkdir(exist_ok=True)
    packed = subprocess.run(["gzip"], input=cpio(files, top / "main"), capture_output=True, check=True).stdout
    early = b""
    if microcode:
        (top / "early").mkdir()
        early = cpio({"kernel/x86/microcode/AuthenticAMD.bin": "x"}, top / "early")
    Path(f"{top}{IMAGE}").write_bytes(early + packed)


def look(top: Path, commands: Commands | None = None, root: Root | None = None) -> Image:
    commands = commands or Commands(PATH)
    return loop.run(initramfs.look(root or Root(str(top)), commands, IMAGE, ("kvm_amd", "kvm_intel")))


def stand_in(folder: Path, **programs: str) -> Commands:
    """Only these programs, sh and sed."""
    for name, text in {"sh": 'exec /bin/sh "$@"', "sed": 'exec /bin/sed "$@"', **programs}.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return Commands(str(folder))


@pytest.mark.parametrize("microcode", [False, True])
def test_carries_driver_and_configuration(tmp_path: Path, microcode: bool) -> None:
    build(
        tmp_path,
        {
            DRIVER: "",
            "etc/modprobe.d/kvm.conf": "options kvm_amd nested=0\n",
            "usr/lib/modprobe.d/a.conf": "# a\n",
        },
        microcode=microcode,
    )
    assert look(tmp_path) == Image(
        IMAGE,
        ("kvm_amd",),
        (
            ("/etc/modprobe.d/kvm.conf", "options kvm_amd nested=0\n"),
            ("/usr/lib/modprobe.d/a.conf", "# a\n"),
        ),
    )


def test_without_the_driver_nothing_is_unpacked(tmp_path: Path) -> None:
    build(tmp_path, {"etc/modprobe.d/kvm.conf": "options kvm_amd nested=0\n", "lib/modules/x/virtio.ko": ""})
    assert look(tmp_path) == Image(IMAGE)


def test_looked_into_once_until_it_changes(tmp_path: Path) -> None:
    build(tmp_path, {DRIVER: ""})
    root = Root(str(tmp_path))
    assert look(tmp_path, root=root) == Image(IMAGE, ("kvm_amd",))
    (tmp_path / "bin").mkdir()
    nothing = stand_in(tmp_path / "bin")
    assert look(tmp_path, nothing, root) == Image(IMAGE, ("kvm_amd",))
    os.utime(f"{tmp_path}{IMAGE}", ns=(1, 1))
    assert "is installed" in look(tmp_path, nothing, root).doubt


def test_no_image(tmp_path: Path) -> None:
    assert look(tmp_path).doubt == f"{IMAGE} cannot be looked at: No such file or directory"


def test_no_tool(tmp_path: Path) -> None:
    build(tmp_path, {DRIVER: ""})
    (tmp_path / "bin").mkdir()
    doubt = look(tmp_path, stand_in(tmp_path / "bin")).doubt
    assert "lsinitramfs (initramfs-tools-core)" in doubt and "lsinitrd (dracut)" in doubt


@pytest.mark.parametrize("tool", ["lsinitrd", "lsinitcpio"])
def test_the_tools_of_others(tmp_path: Path, tool: str) -> None:
    build(tmp_path, {DRIVER: ""})
    (tmp_path / "bin").mkdir()
    # Both unpack into the folder that they stand in; lsinitrd lists as ls -l does.
    text = f"""
case "$1" in
--unpack|-x) mkdir -p etc/modprobe.d; echo "options kvm_amd nested=0" > etc/modprobe.d/x.conf ;;
*) echo "-rw-r--r-- 1 root root 5 Nov 23 01:30 {DRIVER}"; echo "-rw- 1 etc/modprobe.d/x.conf" ;;
esac"""
    found = look(tmp_path, stand_in(tmp_path / "bin", **{tool: text, "mkdir": 'exec /bin/mkdir "$@"'}))
    assert found == Image(IMAGE, ("kvm_amd",), (("/etc/modprobe.d/x.conf", "options kvm_amd nested=0\n"),))


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo damaged >&2; exit 1", "could not read /boot/initrd.img-6.1 (damaged)"),
        ("exit 0", "it said nothing"),
        (
            f"echo {DRIVER}; echo etc/modprobe.d/x.conf",
            "etc/modprobe.d/x.conf of /boot/initrd.img-6.1 could not",
        ),
    ],
)
def test_a_tool_that_fails(tmp_path: Path, script: str, why: str) -> None:
    build(tmp_path, {DRIVER: ""})
    (tmp_path / "bin").mkdir()
    found = look(tmp_path, stand_in(tmp_path / "bin", lsinitramfs=script, unmkinitramfs="exit 1"))
    assert why in found.doubt


def test_a_damaged_image(tmp_path: Path) -> None:
    build(tmp_path, {DRIVER: ""})
    Path(f"{tmp_path}{IMAGE}").write_bytes(b"\x1f\x8b nonsense")
    assert look(tmp_path).doubt
