# SPDX-License-Identifier: LGPL-2.1-or-later
"""What Launch was asked for: from the names and values of its options to a GuestSpec, or InvalidArgs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from nestd.errors import InvalidArgs
from nestd.guestmodel import GuestSpec
from nestd.guests import checks, devices
from nestd.guests.places import NAME_PATTERN

# The options of Launch, with their D-Bus signatures; those of disks and network are in guests/devices.py.
OPTIONS: Mapping[str, str] = {
    "cpu": "s",
    "cpu-features": "as",
    "memory": "t",
    "vcpus": "u",
    "disks": "aa{sv}",
    "cdrom": "s",
    "kernel": "s",
    "initrd": "s",
    "append": "s",
    "firmware": "s",
    "network": "a{sv}",
    "display": "s",
    "user-data": "ay",
    "extra-args": "as",
    "user": "s",
    "require-nesting": "b",
}

_MIN_MEMORY = 16 << 20
# What x86-64 can address with the 46 bits that every such CPU has.
_MAX_MEMORY = 1 << 46
_MAX_VCPUS = 255  # without x2APIC there are no more APIC ids
_MAX_FEATURES = 256
_MAX_APPEND = 2047  # COMMAND_LINE_SIZE of x86 less the NUL
_MAX_USER_DATA = 512 << 10
_MAX_ARGS = 256
_MAX_ARG = 4095


def guest_spec(name: str, user: str, options: Mapping[str, Any]) -> GuestSpec:
    """Check everything that can be known without looking at the machine. InvalidArgs.

    `options` are those of the table, of its types; `user` is the account of the caller, or of the option.
    """
    checks.known(options, OPTIONS, "Launch")
    check_name(name)
    given = options.get
    spec = GuestSpec(
        name=name,
        user=user,
        cpu=_cpu(given("cpu", "host")),
        cpu_features=_features(given("cpu-features", ())),
        memory=checks.within(given("memory", 512 << 20), "memory", _MIN_MEMORY, _MAX_MEMORY, " bytes"),
        vcpus=checks.within(given("vcpus", 1), "vcpus", 1, _MAX_VCPUS),
        disks=devices.disks(given("disks", ())),
        cdrom=_path(options, "cdrom"),
        kernel=_path(options, "kernel"),
        initrd=_path(options, "initrd"),
        append=checks.line(given("append", ""), "append", _MAX_APPEND),
        firmware=checks.one_of(given("firmware", "bios"), "firmware", ("bios", "uefi")),
        network=devices.network(given("network", {})),
        display=checks.one_of(given("display", "none"), "display", ("none", "vnc")),
        user_data=_user_data(given("user-data", b"")),
        extra_args=_extra_args(given("extra-args", ())),
        require_nesting=given("require-nesting", True),
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
            f"{checks.shown(name)} is no name for a guest: use at most 40 letters, digits, '-', '_' and '.', "
            "beginning with a letter or digit."
        )


def _cpu(model: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", model):
        raise InvalidArgs(
            f"{checks.shown(model)} is no CPU model: use host or a name from `qemu-system-x86_64 -cpu help`; "
            "flags go into cpu-features."
        )
    return model


def _features(features: Sequence[str]) -> tuple[str, ...]:
    for feature in features:
        if not re.fullmatch(r"[+-][a-z0-9][a-z0-9._-]{0,63}", feature):
            raise InvalidArgs(
                f"{checks.shown(feature)} in cpu-features is neither +flag nor -flag (QEMU's names)."
            )
    if len(features) > _MAX_FEATURES:
        raise InvalidArgs(f"cpu-features takes at most {_MAX_FEATURES} flags.")
    return tuple(features)


def _path(options: Mapping[str, Any], option: str) -> str:
    return checks.path(options[option], option) if options.get(option) else ""


def _user_data(data: bytes) -> bytes:
    if len(data) > _MAX_USER_DATA:
        raise InvalidArgs(
            f"user-data has {len(data)} bytes, and at most {_MAX_USER_DATA} reach the guest: let it fetch "
            "the rest."
        )
    return data


def _extra_args(words: Sequence[str]) -> tuple[str, ...]:
    if len(words) > _MAX_ARGS:
        raise InvalidArgs(f"extra-args takes at most {_MAX_ARGS} arguments.")
    return tuple(checks.line(word, "Each of extra-args", _MAX_ARG) for word in words)
