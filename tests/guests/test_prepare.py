# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a unit does before QEMU: which commands, and what the real programs make of them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from nestd.errors import LaunchFailed
from nestd.guestmodel import Firmware, GuestSpec, Network, Overlay
from nestd.guests import firmware, prepare, programs
from nestd.guests.prepare import Preparation, preparation
from nestd.host.root import Root

UEFI = Firmware("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd")
# A folder whose name means something to systemd, to a shell, and to whoever takes options apart.
FOLDER = "a $HOME ${PATH},b:c=d"


def _first(names: tuple[str, ...]) -> str:
    return f"/usr/bin/{names[0]}"


def _play(made: Preparation, folder: Path) -> None:
    """Run the commands as systemd does, with the credentials where it puts them."""
    credentials = folder / "credentials"
    credentials.mkdir(parents=True)
    for credential in made.credentials:
        (credentials / credential.name).write_bytes(credential.content)
    for command in made.commands:
        argv = [
            word.replace("${CREDENTIALS_DIRECTORY}", str(credentials)).replace("$$", "$") for word in command
        ]
        done = subprocess.run(argv, cwd="/", capture_output=True, text=True, check=False, umask=0o077)
        assert done.returncode == 0, done


def _contents(iso: Path, folder: Path) -> dict[str, bytes]:
    folder.mkdir()
    subprocess.run(["bsdtar", "-xf", iso, "-C", folder], check=True)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_plain_guest_needs_nothing() -> None:
    assert preparation(GuestSpec("demo", "alice"), None, "/run/demo", _first) == Preparation()


@pytest.mark.parametrize("program", [name for name in prepare.ISO_PROGRAMS if shutil.which(name)])
def test_the_seed_is_what_cloud_init_looks_for(tmp_path: Path, program: str) -> None:
    data = b"#cloud-config\n\xff\0" * 30_000
    spec = GuestSpec("demo", "alice", user_data=data)
    folder = tmp_path / FOLDER
    folder.mkdir()
    found = shutil.which(program)
    assert found
    made = preparation(
        spec, None, str(folder), lambda names: {prepare.ISO_PROGRAMS: found, ("env",): "/usr/bin/env"}[names]
    )
    _play(made, tmp_path / "unit")
    iso = folder / "seed.iso"
    # ECMA-119, 8.4.7: the volume's identifier, which libarchive has in capitals; cloud-init takes either.
    assert iso.read_bytes()[0x8028:0x8048].lower() == b"cidata".ljust(32)
    assert iso.stat().st_mode & 0o077 == 0
    got = _contents(iso, tmp_path / "got")
    assert set(got) == {"user-data", "meta-data"}
    assert got["user-data"] == data
    told = json.loads(got["meta-data"])
    assert told["local-hostname"] == "demo"
    assert re.fullmatch(r"demo-[0-9a-f]{8}", told["instance-id"])


def test_other_user_data_is_another_instance() -> None:
    def instance(name: str, data: bytes) -> str:
        made = preparation(GuestSpec(name, "alice", user_data=data), None, "/run/x", _first)
        [meta] = [each.content for each in made.credentials if each.name == "meta-data"]
        return str(json.loads(meta)["instance-id"])

    assert instance("a", b"x") == instance("a", b"x")
    assert len({instance("a", b"x"), instance("a", b"y"), instance("b", b"x")}) == 3


def test_in_a_lab_the_seed_has_the_address() -> None:
    network = Network("lab", lab="two", mac="52:54:00:00:00:01", address="10.77.0.1/24")
    made = preparation(GuestSpec("a", "alice", user_data=b"x", network=network), None, "/run/x", _first)
    assert [each.name for each in made.credentials] == ["user-data", "meta-data", "network-config"]
    config = json.loads(made.credentials[2].content)
    assert config["version"] == 2
    [card] = config["ethernets"].values()
    assert card == {"match": {"macaddress": "52:54:00:00:00:01"}, "addresses": ["10.77.0.1/24"]}
    assert "network-config" in made.commands[0]


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("demo", "demo"),
        ("a_b", "a-b"),
        ("a.b-", "a.b"),
        ("0", "0"),
        ("a..b", "a.b"),
        ("a_.-", "a"),
        ("x-_", "x"),
    ],
)
def test_a_guest_calls_itself_by_its_name(name: str, host: str) -> None:
    assert prepare.hostname(name) == host
    assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9][A-Za-z0-9-]*)*", host)


def test_the_guest_may_write_its_copy_of_the_variables(tmp_path: Path) -> None:
    template = tmp_path / "$VARS,x"
    template.write_bytes(b"vars")
    template.chmod(0o444)
    folder = tmp_path / FOLDER
    folder.mkdir()
    made = preparation(
        GuestSpec("demo", "alice"), UEFI._replace(variables=str(template)), str(folder), _first
    )
    _play(made, tmp_path / "unit")
    copy = folder / "uefi-variables.fd"
    assert copy.read_bytes() == b"vars"
    assert copy.stat().st_mode & 0o777 == 0o600


def test_an_overlay_differs_from_its_base(tmp_path: Path) -> None:
    base = tmp_path / "b $x,a:se"
    base.write_bytes(b"QFI\xfb" + bytes(1 << 20))  # which says that it is a qcow2
    overlays = tuple(Overlay(str(tmp_path / f"{name} $HOME.qcow2"), str(base), "raw") for name in "ab")
    made = preparation(GuestSpec("demo", "alice", overlays=overlays), None, "/run/x", _first)
    _play(made, tmp_path / "unit")
    for overlay in overlays:
        told = subprocess.run(
            ["qemu-img", "info", "--output=json", overlay.path], capture_output=True, text=True, check=True
        )
        info = json.loads(told.stdout)
        assert (info["format"], info["backing-filename-format"]) == ("qcow2", "raw")
        assert info["full-backing-filename"] == str(base)
        assert info["virtual-size"] == base.stat().st_size // 512 * 512 + 512


def test_uefi_is_found_where_distributions_put_it(tmp_path: Path) -> None:
    root = Root(str(tmp_path))
    with pytest.raises(LaunchFailed, match="install the package ovmf"):
        firmware.find(root)
    pairs = [
        ("usr/share/edk2/x64/OVMF_CODE.4m.fd", "usr/share/edk2/x64/OVMF_VARS.4m.fd"),
        ("usr/share/edk2/ovmf/OVMF_CODE.fd", "usr/share/edk2/ovmf/OVMF_VARS.fd"),
        ("usr/share/OVMF/OVMF_CODE.fd", "usr/share/OVMF/OVMF_VARS.fd"),
        ("usr/share/OVMF/OVMF_CODE_4M.fd", "usr/share/OVMF/OVMF_VARS_4M.fd"),
    ]
    for code, variables in pairs:
        for name in (code, variables):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        assert firmware.find(root) == Firmware(f"{tmp_path}/{code}", f"{tmp_path}/{variables}")
    (tmp_path / "usr/share/OVMF/OVMF_VARS_4M.fd").unlink()
    assert firmware.find(root).code == f"{tmp_path}/usr/share/OVMF/OVMF_CODE.fd"


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (programs.QEMU, "qemu-system-x86_64 is not installed: install the package qemu-system-x86"),
        (prepare.ISO_PROGRAMS, "install libarchive-tools .*Any of bsdtar, xorrisofs, genisoimage, mkisofs"),
        (("qemu-img",), "qemu-img is not installed: install the package qemu-utils"),
        (("install",), "install is not installed"),
    ],
)
def test_what_is_not_installed_is_told_with_its_package(
    tmp_path: Path, names: tuple[str, ...], words: str
) -> None:
    root = Root(str(tmp_path))
    with pytest.raises(LaunchFailed, match=words):
        programs.find(root, "/bin:relative", names)
    last = tmp_path / "bin" / names[-1]
    last.parent.mkdir()
    last.touch()
    with pytest.raises(LaunchFailed):
        programs.find(root, "/bin", names)
    last.chmod(0o755)
    assert programs.find(root, "/bin", names) == os.fspath(last)
