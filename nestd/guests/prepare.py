# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a guest's unit does before QEMU: as the guest's user, inside its sandbox (ExecStartPre=).

So nestd opens nobody's file and gives none away, and what is made belongs to who may use it. What the
programs need to know and nobody else may read comes as credentials (systemd.exec(5), LoadCredential=).
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Callable
from typing import NamedTuple

from nestd.guestmodel import Firmware, GuestSpec, Overlay
from nestd.text.qemudevices import SEED, VARIABLES

# systemd puts its value here (systemd.service(5), COMMAND LINES), which is a folder of files.
_CREDENTIALS = "${CREDENTIALS_DIRECTORY}"
# The label that cloud-init's NoCloud looks for, in capitals (as which libarchive writes it) or not.
_LABEL = "cidata"
# Whichever is there makes the seed: libarchive's, xorriso's, cdrkit's, cdrtools'.
ISO_PROGRAMS = ("bsdtar", "xorrisofs", "genisoimage", "mkisofs")

# The absolute path of the first of these programs that is installed; LaunchFailed if none is.
Find = Callable[[tuple[str, ...]], str]


class Credential(NamedTuple):
    """A file for the unit alone, by the name that it has in $CREDENTIALS_DIRECTORY."""

    name: str
    content: bytes


class Preparation(NamedTuple):
    """`commands` are argument lists as systemd reads them ($ is doubled), the program first."""

    commands: tuple[tuple[str, ...], ...] = ()
    credentials: tuple[Credential, ...] = ()


def preparation(spec: GuestSpec, firmware: Firmware | None, runtime_dir: str, find: Find) -> Preparation:
    """All that is done before QEMU for this guest; its files come into `runtime_dir`, whatever its $ are.

    `find` raises LaunchFailed.
    """
    commands = [_overlay(find(("qemu-img",)), overlay) for overlay in spec.overlays]
    if firmware:
        copy = (find(("install",)), "-m", "0600", "--", firmware.variables, f"{runtime_dir}/{VARIABLES}")
        commands.append(tuple(literal(word) for word in copy))
    credentials: tuple[Credential, ...] = ()
    if spec.user_data:
        credentials = _seed(spec)
        made = _iso(find(ISO_PROGRAMS), literal(f"{runtime_dir}/{SEED}"), credentials)
        # libarchive collects its image in a temporary file, and the sandbox has no other folder to write to.
        commands.append((find(("env",)), f"TMPDIR={literal(runtime_dir)}", *made))
    return Preparation(tuple(commands), credentials)


def literal(word: str) -> str:
    """A word of a command as systemd has to read it, to mean just that."""
    return word.replace("$", "$$")


def hostname(name: str) -> str:
    """What a guest of that name calls itself: letters, digits, dashes and dots (RFC 1123)."""
    return (
        ".".join(label for part in name.replace("_", "-").split(".") if (label := part.strip("-"))) or "guest"
    )


def _overlay(qemu_img: str, overlay: Overlay) -> tuple[str, ...]:
    # The paths are absolute, so QEMU takes neither for a protocol; the base's format is never guessed.
    argv = (qemu_img, "create", "-q", "-f", "qcow2", "-F", overlay.format, "-b", overlay.base, overlay.path)
    return tuple(literal(word) for word in argv)


def _seed(spec: GuestSpec) -> tuple[Credential, ...]:
    """NoCloud's files (cloud-init, "NoCloud"); JSON is YAML, too."""
    # An instance is set up once. The same name with other user data is another one.
    instance = f"{spec.name}-{binascii.crc32(spec.user_data):08x}"
    meta = {"instance-id": instance, "local-hostname": hostname(spec.name)}
    made = [Credential("user-data", spec.user_data), Credential("meta-data", json.dumps(meta).encode())]
    if spec.network.address:
        card = {"match": {"macaddress": spec.network.mac}, "addresses": [spec.network.address]}
        config = {"version": 2, "ethernets": {"lab": card}}
        made.append(Credential("network-config", json.dumps(config).encode()))
    return tuple(made)


def _iso(program: str, path: str, credentials: tuple[Credential, ...]) -> tuple[str, ...]:
    names = [credential.name for credential in credentials]
    if program.endswith("/bsdtar"):
        options = f"iso9660:volume-id={_LABEL},joliet,rockridge"
        command = (program, "--format=iso9660", f"--options={options}", "-cf", path, "-C", _CREDENTIALS)
        return (*command, "--", *names)
    files = [f"{_CREDENTIALS}/{name}" for name in names]
    return (program, "-quiet", "-o", path, "-V", _LABEL, "-J", "-r", *files)
