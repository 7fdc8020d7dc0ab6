# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who holds the driver: the processes that have /dev/kvm or a part of a virtual machine open."""

from __future__ import annotations

import re

from nestd.host.root import Root
from nestd.model import Holder

_UNIT = re.compile(r"[^/]+\.(?:service|scope)")
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")
_LIBVIRT = re.compile(r"qemu-[0-9]+-(.+)")


def _holds(link: str) -> bool:
    # /dev/kvm may be seen through another mount namespace. A VM, a vCPU or a device of a VM holds
    # the driver alone, with /dev/kvm closed (virt/kvm/kvm_main.c: anon_inode_getfile with "kvm-...").
    return link.endswith("/dev/kvm") or link.startswith("anon_inode:kvm-")


def _printable(text: str) -> str:
    return "".join(one if one.isprintable() else "?" for one in text)


def unit_of(cgroup: str) -> str:
    """The innermost service or scope in the text of /proc/PID/cgroup (cgroups(7), line `0::`), or ""."""
    for line in cgroup.splitlines():
        if line.startswith("0::"):
            units = [part for part in line[3:].split("/") if _UNIT.fullmatch(part)]
            return _printable(units[-1]) if units else ""
    return ""


def machine_of(unit: str) -> str:
    """The machine's name that a unit's name carries, or "".

    It is that of systemd-machined's `machine-NAME.scope`, unescaped as systemd.unit(5) says (of
    libvirt's `qemu-ID-NAME` the NAME), and of nestd's own `nestd-guest-NAME.service`.
    """
    if unit.startswith("nestd-guest-") and unit.endswith(".service"):
        return unit.removeprefix("nestd-guest-").removesuffix(".service")
    if not (unit.startswith("machine-") and unit.endswith(".scope")):
        return ""
    escaped = unit.removeprefix("machine-").removesuffix(".scope").encode("utf-8", "surrogateescape")
    plain = _ESCAPED.sub(lambda match: bytes.fromhex(match[1].decode()), escaped)
    name = _printable(plain.decode("utf-8", "replace"))
    libvirt = _LIBVIRT.fullmatch(name)
    return libvirt[1] if libvirt else name


def _is_holder(root: Root, folder: str) -> bool:
    return any(_holds(root.link(f"{folder}/fd/{name}") or "") for name in root.names(f"{folder}/fd"))


def holders(root: Root) -> tuple[Holder, ...]:
    """The holders, by process id.

    A process that vanishes meanwhile is left out. So is one whose files may not be seen (another
    user's, without CAP_SYS_PTRACE): a refcnt of the driver above 0 with no holder named says so.
    Raises OSError where /proc itself cannot be read.
    """
    found = []
    for pid in sorted(int(name) for name in root.names("/proc") if name.isascii() and name.isdigit()):
        folder = f"/proc/{pid}"
        try:
            if not _is_holder(root, folder):
                continue
            comm = root.read(f"{folder}/comm")
            cgroup = root.read(f"{folder}/cgroup")
        except PermissionError:
            continue
        if comm is None:
            continue
        unit = unit_of(cgroup or "")
        found.append(Holder(pid, _printable(comm.removesuffix("\n")), unit, machine_of(unit)))
    return tuple(found)
