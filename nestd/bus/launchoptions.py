# SPDX-License-Identifier: LGPL-2.1-or-later
"""Launch's options as plain values, those within others too."""

from collections.abc import Mapping
from typing import Any

from nestd.bus import boundary
from nestd.guests import devices
from nestd.wire.library import Variant


def plain(given: Mapping[str, Variant], table: Mapping[str, str]) -> dict[str, Any]:
    """`boundary.options`, and so of each disk and of the network, for guests/request.py. InvalidArgs."""
    options = boundary.options(given, table)
    options["disks"] = [boundary.options(disk, devices.DISK_OPTIONS) for disk in options.get("disks", ())]
    if "network" in options:
        options["network"] = boundary.options(options["network"], devices.NETWORK_OPTIONS)
    return options
