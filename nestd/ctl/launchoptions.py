# SPDX-License-Identifier: LGPL-2.1-or-later
"""Launch's options for the bus, from the command line."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from nestd.wire.library import Variant


def options(given: Namespace) -> dict[str, Variant]:
    """Only what was said, so that the defaults stay the daemon's."""
    said: Sequence[tuple[str, str, Any]] = (
        ("cpu", "s", given.cpu),
        ("cpu-features", "as", given.features or None),
        ("memory", "t", given.memory),
        ("vcpus", "u", given.vcpus),
        ("disks", "aa{sv}", [_variants(disk) for disk in given.disks] or None),
        ("cdrom", "s", given.cdrom),
        ("kernel", "s", given.kernel),
        ("initrd", "s", given.initrd),
        ("append", "s", given.append),
        ("firmware", "s", given.firmware),
        ("network", "a{sv}", _network(given)),
        ("display", "s", "vnc" if given.vnc else None),
        ("user-data", "ay", given.user_data),
        ("extra-args", "as", given.extra_args or None),
        ("user", "s", given.user),
        ("require-nesting", "b", False if given.allow_no_nesting else None),
    )
    return {key: Variant(signature, value) for key, signature, value in said if value is not None}


def _network(given: Namespace) -> dict[str, Variant] | None:
    network = given.network or ({"kind": "user"} if given.forwards else None)
    if network is None:
        return None
    said = _variants(network)
    if given.forwards:
        said["forwards"] = Variant("as", given.forwards)
    return said


def _variants(values: Mapping[str, str | bool]) -> dict[str, Variant]:
    return {key: Variant("b" if isinstance(value, bool) else "s", value) for key, value in values.items()}
