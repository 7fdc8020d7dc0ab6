# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs in a machine, with root's rights: nestd's own measuring and verifying, as the daemon would do it.

    python3 -m tests.vm.proof measure
    python3 -m tests.vm.proof verify '{"user": "nestd", "cpu": "host"}' [FOLDER-WITH-ANOTHER-initrd]

It prints one line of JSON: what came of it, or the error's name and text.
"""

from __future__ import annotations

import json
import sys
import time

from nestd import tasks
from nestd.bus.connection import Connection
from nestd.errors import BusError
from nestd.guests.launch import Launcher
from nestd.guests.measure import measure
from nestd.guests.probe.image import image
from nestd.guests.registry import Registry
from nestd.guests.verify import Request, Verifier
from nestd.host.accounts import Accounts
from nestd.host.machine import Host
from nestd.host.units import Units
from nestd.model import Extension

_SYSTEM_BUS = "unix:path=/run/dbus/system_bus_socket"


async def _measure(host: Host) -> dict[str, object]:
    found = await measure(host.root, host.commands)
    return {"kernel": found.kernel._asdict(), "user": found.user._asdict()}


async def _verify(host: Host, asked: dict[str, object], initrd: str) -> dict[str, object]:
    connection = await Connection.connect(_SYSTEM_BUS)
    units = Units(connection)
    registry = Registry(host.root, units, lambda _: None, lambda _: None, lambda _, __: None)
    path = "/usr/sbin:/usr/bin:/sbin:/bin"
    launcher = Launcher(host.root, host.commands, Accounts(), units, registry, path=path)
    try:
        began = time.monotonic()
        made = await image(host, "kvm_amd", "svm")
        built = time.monotonic() - began
        made = made._replace(initrd=initrd or made.initrd)
        found = await Verifier(launcher, registry).verify(made, Request(**asked), Extension.SVM)  # type: ignore[arg-type]
        seen = found.verdict
        numbers = seen.exits and {"kernel": seen.exits.kernel._asdict(), "user": seen.exits.user._asdict()}
        return {
            **found._asdict(),
            "verdict": {**seen._asdict(), "exits": numbers},
            "initrd": made.initrd,
            "built": built,
            "left": [record.name for record in registry.records],
        }
    finally:
        await registry.close()
        await connection.close()


async def _main() -> dict[str, object]:
    host = Host.running()
    try:
        if sys.argv[1] == "measure":
            return await _measure(host)
        return await _verify(host, json.loads(sys.argv[2]), "".join(sys.argv[3:]))
    except BusError as error:
        return {"error": type(error).__name__, "text": str(error)}


if __name__ == "__main__":
    print(json.dumps(tasks.run(_main())))
