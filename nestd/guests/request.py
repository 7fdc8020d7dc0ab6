# SPDX-License-Identifier: LGPL-2.1-or-later
"""What Launch was asked for: from the names and values of its options to a GuestSpec, or InvalidArgs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from nestd.errors import InvalidArgs
from nestd.guestmodel import Disk, GuestSpec
from nestd.guests.places import NAME_PATTERN

# The options of Launch, and of each of its disks, with their D-Bus signatures.
OPTIONS: Mapping[str, str] = {
    "cpu": "s",
    "cpu-features": "as",
    "memory": "t",
    "vcpus": "u",
    "disks": "aa{sv}",
    "kernel": "s",
    "initrd": "s",
    "append": "s",
    "user": "s",
    "require-nesting": "b",
}
DISK_OPTIONS: Mapping[str, str] = {"path": "s", "format": "s", "readonly": "b", "snapshot": "b"}

_FORMATS = ("raw", "qcow2")
_MIN_MEMORY = 16 << 20
# What x86-64 can address with the 46 bits that every such CPU has.
_MAX_MEMORY = 1 << 46
_MAX_VCPUS = 255  # without x2APIC there are no more APIC ids
# One virtio-blk-pci each on the q35's root bus, which has 32 slots and some in use.
_MAX_DISKS = 24
_MAX_FEATURES = 256
_MAX_PATH = 4095  # PATH_MAX, limits.h
_MAX_APPEND = 2047  # COMMAND_LINE_SIZE of x86 less the NUL
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def guest_spec(name: str, user: str, options: Mapping[str, Any]) -> GuestSpec:
    """Check everything that can be known without looking at the machine. InvalidArgs.

    `options` are those of the table, of its types; `user` is the account of the caller, or of the option.
    """
    _known(options, OPTIONS, "Launch")
    check_name(name)
    spec = GuestSpec(
        name=name,
        user=user,
        cpu=_cpu(options.get("cpu", "host")),
        cpu_features=_features(options.get("cpu-features", ())),
        memory=_within(options.get("memory", 512 << 20), "memory", _MIN_MEMORY, _MAX_MEMORY, " bytes"),
        vcpus=_within(options.get("vcpus", 1), "vcpus", 1, _MAX_VCPUS),
        disks=_disks(options.get("disks", ())),
        kernel=_path(options["kernel"], "kernel") if options.get("kernel") else "",
        initrd=_path(options["initrd"], "initrd") if options.get("initrd") else "",
        append=_append(options.get("append", "")),
        require_nesting=options.get("require-nesting", True),
    )
    for option, value in (("initrd", spec.initrd), ("append", spec.append)):
        if value and not spec.kernel:
            raise InvalidArgs(
                f"{option} goes with a kernel: name one with the option kernel, or leave it out."
            )
    return spec


def check_name(name: str) -> None:
    """A guest's name is part of a unit's name, of a folder and of an object path. InvalidArgs."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise InvalidArgs(
            f"{_shown(name)} is no name for a guest: use at most 40 letters, digits, '-', '_' and '.', "
            "beginning with a letter or digit."
        )


def _cpu(model: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", model):
        raise InvalidArgs(
            f"{_shown(model)} is no CPU model: use host or a name from `qemu-system-x86_64 -cpu help`; "
            "flags go into cpu-features."
        )
    return model


def _features(features: Sequence[str]) -> tuple[str, ...]:
    for feature in features:
        if not re.fullmatch(r"[+-][a-z0-9][a-z0-9._-]{0,63}", feature):
            raise InvalidArgs(f"{_shown(feature)} in cpu-features is neither +flag nor -flag (QEMU's names).")
    if len(features) > _MAX_FEATURES:
        raise InvalidArgs(f"cpu-features takes at most {_MAX_FEATURES} flags.")
    return tuple(features)


def _disks(disks: Sequence[Mapping[str, Any]]) -> tuple[Disk, ...]:
    if len(disks) > _MAX_DISKS:
        raise InvalidArgs(f"A guest takes at most {_MAX_DISKS} disks.")
    return tuple(_disk(disk) for disk in disks)


def _disk(options: Mapping[str, Any]) -> Disk:
    _known(options, DISK_OPTIONS, "a disk")
    path = _path(options.get("path", ""), "a disk's path")
    kind = options.get("format", "")
    if kind not in _FORMATS:
        raise InvalidArgs(
            f"The disk {path} needs its format, raw or qcow2, not {_shown(kind)}: a format is never "
            "guessed, as a raw disk can pretend to be another."
        )
    return Disk(path, kind, options.get("readonly", False), options.get("snapshot", False))


def _path(path: str, what: str) -> str:
    if not path.startswith("/") or _CONTROL.search(path) or len(path.encode(errors="replace")) > _MAX_PATH:
        raise InvalidArgs(f"{what} must be an absolute path without control characters, not {_shown(path)}.")
    return path


def _append(text: str) -> str:
    if _CONTROL.search(text) or len(text.encode(errors="replace")) > _MAX_APPEND:
        raise InvalidArgs(f"append must be one line of at most {_MAX_APPEND} bytes.")
    return text


def _within(value: int, what: str, least: int, most: int, unit: str = "") -> int:
    if not least <= value <= most:
        raise InvalidArgs(f"{what} must be from {least} to {most}{unit}, not {value}.")
    return value


def _known(options: Mapping[str, Any], table: Mapping[str, str], what: str) -> None:
    for option in options:
        if option not in table:
            raise InvalidArgs(f"{_shown(option)} is no option of {what}: there are {', '.join(table)}.")


def _shown(text: str) -> str:
    """Somebody else's words, short and harmless on a terminal."""
    return ascii(text if len(text) <= 60 else text[:60] + "...")
