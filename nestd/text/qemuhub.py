# SPDX-License-Identifier: LGPL-2.1-or-later
"""QEMU as a hub for Ethernet frames: a process without a machine, which gets its ports while it runs.

Source: QEMU's net/hub.c, net/socket.c and qapi/net.json. What a port sends reaches every other port and never
itself. A port whose other end is gone is silent until it is taken away; one that does not read loses frames
and delays nobody. The frames are those of a guest's `-netdev socket`: first four bytes of length, big-endian.
"""

from __future__ import annotations

from collections.abc import Mapping

from nestd.text.qemudevices import quoted

_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
# QEMU insists on an accelerator. TCG, where there is nothing else, asks for a gigabyte that is written and
# executed (MemoryDenyWriteExecute=), unless it is told otherwise; with nothing to execute it needs none.
_ACCELERATORS = ("-accel", "qtest", "-accel", "tcg,split-wx=on,tb-size=1")


def arguments(lab: str, runtime_dir: str) -> list[str]:
    """What follows the program's name. `runtime_dir` gets the socket `qmp`."""
    argv = ["-name", f"guest={lab}", "-nodefaults", "-no-user-config", "-sandbox", _SANDBOX]
    argv += ["-msg", "timestamp=off", "-machine", "none", *_ACCELERATORS, "-display", "none", "-nic", "none"]
    argv += ["-chardev", f"socket,id=qmp,path={quoted(runtime_dir)}/qmp,server=on,wait=off"]
    return [*argv, "-mon", "chardev=qmp,mode=control"]


def port(guest: str) -> str:
    """The id of a guest's port. A guest's name is fit for it."""
    return f"port.{guest}"


def cable(guest: str) -> str:
    """The id of what leads from the port to the guest, and the name of its descriptor."""
    return f"cable.{guest}"


def add_cable(guest: str) -> Mapping[str, object]:
    """The arguments of netdev_add for the descriptor that getfd has named `cable(guest)`."""
    return {"type": "socket", "id": cable(guest), "fd": cable(guest)}


def add_port(guest: str) -> Mapping[str, object]:
    """The arguments of netdev_add for the port."""
    return {"type": "hubport", "id": port(guest), "hubid": 0, "netdev": cable(guest)}
