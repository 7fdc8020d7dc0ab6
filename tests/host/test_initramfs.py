# SPDX-License-Identifier: LGPL-2.1-or-later
"""Looking into an initramfs: with the real initramfs-tools, and with stand-ins for what may go wrong."""

from __future__ import annotations

import gzip
import subprocess
from pathlib import Path

import pytest

from nestd.host import initramfs
from nestd.host.commands import Commands
from nestd.host.initramfs import Image
from nestd.host.root import Root
from tests.support import loop
from tests.support.images import unified
from tests.support.initramfs import packed

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


def look(top: Path, commands: Commands | None = None) -> Image:
    commands = commands or Commands(PATH)
    return loop.run(initramfs.look(Root(str(top)), commands, IMAGE))


def stand_in(folder: Path, **programs: str) -> Commands:
    """Only these programs, sh, sed and grep."""
    for name, text in {
        "sh": 'exec /bin/sh "$@"',
        "sed": 'exec /bin/sed "$@"',
        "grep": 'exec /bin/grep "$@"',
        **programs,
    }.items():
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
            "usr/lib/modprobe.d/a.conf": "# kvm\n",
        },
        microcode=microcode,
    )
    assert look(tmp_path) == Image(
        IMAGE,
        ("kvm_amd",),
        (
            ("/etc/modprobe.d/kvm.conf", "options kvm_amd nested=0\n"),
            ("/usr/lib/modprobe.d/a.conf", "# kvm\n"),
        ),
    )


def test_without_the_driver(tmp_path: Path) -> None:
    """What speaks of it is told all the same: it may have to go."""
    option = "options kvm_amd nested=0\n"
    build(
        tmp_path,
        {
            "etc/modprobe.d/kvm.conf": option,
            "lib/modules/x/virtio.ko": "",
            "etc/modprobe.d/sound.conf": "options snd index=1\n",
        },
    )
    assert look(tmp_path) == Image(IMAGE, (), (("/etc/modprobe.d/kvm.conf", option),))


@pytest.mark.parametrize(
    ("file", "maker"),
    [
        ("conf/initramfs.conf", initramfs.INITRAMFS_TOOLS),
        ("usr/lib/dracut/modules.txt", initramfs.DRACUT),
        ("buildconfig", initramfs.MKINITCPIO),
        ("etc/buildconfig.d/x", ""),
    ],
)
def test_who_made_it(tmp_path: Path, file: str, maker: str) -> None:
    build(tmp_path, {DRIVER: "", file: "x"}, microcode=True)
    assert look(tmp_path) == Image(IMAGE, ("kvm_amd",), maker=maker)


def test_uncompressed_behind_the_microcode(tmp_path: Path) -> None:
    """Debian 13 puts modules that are compressed already into an archive of their own, which is not."""
    build(tmp_path, {"etc/modprobe.d/a.conf": "options kvm_amd nested=1\n", "conf/initramfs.conf": ""})
    path = Path(f"{tmp_path}{IMAGE}")
    path.write_bytes(gzip.decompress(packed({DRIVER: "x"})) + path.read_bytes())
    assert look(tmp_path) == Image(
        IMAGE,
        ("kvm_amd",),
        (("/etc/modprobe.d/a.conf", "options kvm_amd nested=1\n"),),
        maker=initramfs.INITRAMFS_TOOLS,
    )


def test_a_unified_kernel_image(tmp_path: Path) -> None:
    build(tmp_path, {DRIVER: "", "etc/modprobe.d/a.conf": "options kvm_amd nested=1\n"})
    path = Path(f"{tmp_path}{IMAGE}")
    path.write_bytes(unified({".linux": b"k", ".initrd": path.read_bytes()}))
    assert look(tmp_path).modules == ("kvm_amd",)
    assert look(tmp_path).files == (("/etc/modprobe.d/a.conf", "options kvm_amd nested=1\n"),)
    path.write_bytes(unified({".linux": b"k"}))
    assert look(tmp_path).doubt == f"{IMAGE} cannot be read: it has no initramfs in it"


def test_a_link_that_leads_out(tmp_path: Path) -> None:
    (tmp_path / "main/etc/modprobe.d").mkdir(parents=True)
    (tmp_path / "main/etc/modprobe.d/x.conf").symlink_to("/etc/passwd")
    build(tmp_path, {DRIVER: ""})
    found = look(tmp_path)
    assert found.files == () and "etc/modprobe.d/x.conf" in found.doubt


def test_squashed(tmp_path: Path) -> None:
    build(tmp_path, {"squashfs-root.img": "x"})
    assert look(tmp_path).doubt == f"{IMAGE} holds a file system of its own, which is not looked into"


def test_no_image(tmp_path: Path) -> None:
    assert look(tmp_path).doubt == f"{IMAGE} cannot be read: No such file or directory"


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
            "of /boot/initrd.img-6.1 could not be unpacked: etc/modprobe.d/x.conf",
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
