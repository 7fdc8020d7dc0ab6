# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who holds the driver: the processes that have /dev/kvm or a part of a virtual machine open."""

from __future__ import annotations

import re

from nestd.host.root import Root
from nestd.model import Holder

_UNIT = re.compile(r"[^/]+\.(?:service|scope)")
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")
_LIBVIRT = re.compile(r"(?:qemu|lxc)-[0-9]+-(.+)")
# Where a machine or a container begins; what is below is its own affair. systemd-machined(8), nspawn's
# template unit, our own guests, LXC; then the runtimes that know containers by an id, with systemd or not.
_NAMED = re.compile(
    r"machine-(.+)\.scope|systemd-nspawn@(.+)\.service|nestd-guest-(.+)\.service|lxc\.payload\.(.+)"
)
_NUMBERED = re.compile(r"(?:[a-z-]+-)?([0-9a-f]{64})(?:\.scope)?")
# Of an id, what docker ps, podman ps and crictl ps show.
_SHOWN = 12


def holds(link: str) -> bool:
    """Whether a descriptor of which /proc says `link` holds the driver."""
    # /dev/kvm may be seen through another mount namespace. A VM, a vCPU or a device of a VM holds
    # the driver alone, with /dev/kvm closed (virt/kvm/kvm_main.c: anon_inode_getfile with "kvm-...").
    return link.endswith("/dev/kvm") or link.startswith("anon_inode:kvm-")


def _printable(text: str) -> str:
    return "".join(one if one.isprintable() else "?" for one in text)


def _unescape(name: str) -> str:
    r"""A unit's part without its escapes (systemd.unit(5)): `\x2d` is `-`. Machines' names have no `/`."""
    plain = _ESCAPED.sub(
        lambda match: bytes.fromhex(match[1].decode()), name.encode("utf-8", "surrogateescape")
    )
    return plain.decode("utf-8", "replace")


def _machine(part: str) -> str:
    """The machine or container that begins at a part of a cgroup's path; "" if none does."""
    numbered = _NUMBERED.fullmatch(part)
    if numbered:
        return numbered[1][:_SHOWN]
    named = _NAMED.fullmatch(part)
    if named is None:
        return ""
    name = _unescape(next(group for group in named.groups() if group))
    libvirt = _LIBVIRT.fullmatch(name) if part.startswith("machine-") else None
    return libvirt[1] if libvirt else name


def place_of(cgroup: str) -> tuple[str, str]:
    """The systemd unit and the machine that the text of /proc/PID/cgroup (cgroups(7)) tells; each may be "".

    In a container or a virtual machine it is the host's unit, not the one that the container's own systemd
    has below; else the innermost, so that of a user's service it is not the user's whole manager.
    """
    unit = ""
    for part in _path(cgroup).split("/"):
        if _UNIT.fullmatch(part):
            unit = part
        if machine := _machine(part):
            return _printable(unit), _printable(machine)
    return _printable(unit), ""


def _path(cgroup: str) -> str:
    """The path of systemd's hierarchy: the only one of cgroup 2, named of cgroup 1."""
    hierarchies = dict(
        line.split(":", 1)[1].split(":", 1) for line in cgroup.splitlines() if line.count(":") > 1
    )
    return hierarchies.get("name=systemd") or hierarchies.get("") or ""


def _is_holder(root: Root, folder: str) -> bool:
    return any(holds(root.link(f"{folder}/fd/{name}") or "") for name in root.names(f"{folder}/fd"))


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
        found.append(Holder(pid, _printable(comm.removesuffix("\n")), *place_of(cgroup or "")))
    return tuple(found)
