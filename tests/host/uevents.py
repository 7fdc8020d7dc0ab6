# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run in a network namespace of its own: inject kernel uevents, print what the monitor says."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable

from nestd import tasks
from nestd.host.udev import ModuleMonitor
from nestd.model import ModuleEvent

_NETLINK_KOBJECT_UEVENT = 15
_FLOOD = 60_000


class Injector:
    """What the kernel is sent here it sends to all listeners (lib/kobject_uevent.c, uevent_net_rcv_skb)."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_KOBJECT_UEVENT)

    def send(self, action: str, path: str, subsystem: str = "module") -> None:
        text = f"{action}@{path}\0ACTION={action}\0DEVPATH={path}\0SUBSYSTEM={subsystem}\0".encode()
        self._socket.sendto(struct.pack("=IHHII", 16 + len(text), 0x10, 1, 0, 0) + text, (0, 0))

    def close(self) -> None:
        self._socket.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for it, 20 s at most."""
    async with tasks.timeout(20):
        while not condition():
            await tasks.sleep(0.01)


async def main() -> None:
    events: list[ModuleEvent] = []
    overflows: list[int] = []
    monitor = ModuleMonitor(events.append, lambda: overflows.append(len(events)))
    monitor.start()
    kernel = Injector()
    kernel.send("add", "/module/kvm")
    kernel.send("add", "/devices/virtual/misc/kvm", "misc")
    kernel.send("change", "/module/kvm")
    kernel.send("add", "/module/kvm_amd")
    kernel.send("remove", "/module/kvm_amd")
    await until(lambda: len(events) == 3)
    told = [f"{event.action} {event.module}" for event in events]

    for _ in range(_FLOOD):
        kernel.send("add", "/module/flood")
    await until(lambda: bool(overflows))
    kernel.send("add", "/module/after")
    await until(lambda: events[-1].module == "after")

    monitor.close()
    count = len(events)
    kernel.send("add", "/module/closed")
    await tasks.sleep(0.1)
    monitor.close()
    kernel.close()
    flood = sum(event.module == "flood" for event in events)
    print(json.dumps([told, len(overflows), 0 < flood < _FLOOD, len(events) - count]))


if __name__ == "__main__":
    tasks.run(main())
