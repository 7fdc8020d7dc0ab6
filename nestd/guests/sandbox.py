# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest's transient unit as properties: what QEMU may do, and no more.

Source: systemd.exec(5), systemd.resource-control(5), org.freedesktop.systemd1(5); nothing that systemd 247
does not know. The guest's files are opened with the rights of the unit's user, and a guest that breaks
out of QEMU has those rights too. What it then meets:

- ProtectSystem=strict, which leaves /home out, and ProtectHome=read-only, with ReadWritePaths of the
  writable disks alone: it cannot write to ~/.bashrc, which belongs to the same user. /home and /tmp stay
  readable, since that is where people keep disks, kernels and initrds; hence no PrivateTmp.
- No way to the user's other processes, which would do anything for that uid outside of this sandbox: no
  connect(2) (tmux and the X server listen in /tmp, the user's own systemd in /run/user; QEMU only ever
  listens), no /proc (/proc/PID/root leads into their mounts, /proc/PID/mem into them), no ptrace(2) nor
  SysV IPC, no /dev/shm, /dev/mqueue and terminals. Signals cannot be kept from them.
- PrivateNetwork and AF_UNIX alone; abstract sockets are out of reach as well. A lab's segment comes as a
  descriptor, connected already, and takes none of this away.
- No device but /dev/kvm and those of its own files that are block devices (guests/blockdevices.py), no
  capability, no setuid program, no namespace to get them in, no code that was not in a file (QEMU translates
  none under KVM).

The network `user` is the exception: QEMU itself makes the guest's connections, so there is no PrivateNetwork,
and AF_INET, AF_INET6 and connect(2) are allowed. In their place what listens on unix sockets is hidden: /run
(the system bus, the user's systemd, daemons of containers) but for the guest's own folder, removable media
and what tells the name servers; and /tmp (tmux, ssh-agent, X), or, where one of the guest's files lies there,
what is known to listen in it. It can still reach all that the machine's network leads to, services on the
machine's own loopback among it (10.0.2.2 for the guest); and who breaks out of QEMU, abstract sockets, and
those in other folders, such as /home and /var, that let this user in.

What runs before QEMU (guests/prepare.py) has the same sandbox. What is a credential is read by systemd, from
root's file, and its copy is for the unit alone.

What stays off: PrivateDevices (/dev has no kvm then), ProtectKernelModules (kernels lie in /usr/lib/modules),
RemoveIPC (it takes what the user's other processes have), ProtectClock and ProtectHostname (both take a
capability anyway; the one adds the clock to the devices, the other wants /proc), PrivateUsers
(user.max_user_namespaces may be 0, and without /proc it keeps nothing more out).
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from nestd.guestmodel import GuestSpec
from nestd.guests import places
from nestd.guests.prepare import literal
from nestd.host.accounts import Account
from nestd.wire.library import Variant

KVM_GROUP = "kvm"
# Seconds for each command before QEMU, and for QEMU to be executed.
START_LIMIT = 30.0
_STOP_MICROSECONDS = 10_000_000
# Besides the guest's memory: QEMU itself, page tables of the guest and of its guests (an eighth is
# generous), the console's log. File cache does not count, it is reclaimed.
_OVERHEAD = 512 << 20
# Besides one thread a vCPU: the main loop, RCU, and up to 64 for disks.
_TASKS = 128
_CONSOLE_LOG_SIZE = "1M"
_INACCESSIBLE = ("/proc", "-/run/user", "-/dev/shm", "-/dev/mqueue", "-/dev/pts")
# Whether these are allowed, in this order; SystemCallFilter= can be told more than once. seccomp: -sandbox.
_SYSTEM_CALLS = (
    (True, ["@system-service"]),
    (False, ["@privileged", "@resources", "@setuid", "@keyring", "@ipc", "kcmp"]),
    (True, ["memfd_create", "pipe", "pipe2", "seccomp"]),
)
# With `user` network: what of /run is left. resolv.conf(5) may be a link to one of the last three.
_RUN = ("/run/media", "/run/systemd/resolve", "/run/NetworkManager", "/run/resolvconf")
_ALONE: Sequence[tuple[str, str, object]] = (
    ("PrivateNetwork", "b", True),
    ("RestrictAddressFamilies", "(bas)", [True, ["AF_UNIX"]]),
    ("SystemCallFilter", "(bas)", [False, ["connect"]]),
    ("InaccessiblePaths", "as", list(_INACCESSIBLE)),
)
_LISTENS_IN_TMP = ("-/tmp/.X11-unix", "-/tmp/.ICE-unix", "-/tmp/.XIM-unix", "-/tmp/.font-unix")


def properties(
    spec: GuestSpec,
    account: Account,
    argv: Sequence[str],
    kvm_group: bool,
    before: Sequence[Sequence[str]] = (),
    credentials: Mapping[str, str] = MappingProxyType({}),
    devices: Mapping[str, str] = MappingProxyType({}),
) -> list[tuple[str, Variant]]:
    """The properties for StartTransientUnit.

    `argv` begins with QEMU's absolute path; `before` are the commands of guests/prepare.py, `credentials` the
    files that hold what it names, `devices` what guests/blockdevices.py has found. A guest in a lab expects
    its segment as the call's first descriptor.
    """
    # By numbers: the names of network accounts may be none that systemd takes.
    owner = f"uid={account.uid},gid={account.gid}"
    written = [disk.path for disk in spec.disks if not (disk.readonly or disk.snapshot)]
    nodes = [[node, "rw" if path in written else "r"] for path, node in devices.items()]
    writable = [f"-{path}" for path in written if path not in devices]  # /dev is, in any case
    if any(disk.snapshot for disk in spec.disks):
        writable.append("/var/tmp")  # noqa: S108 - where QEMU puts the overlays of snapshots
    settings: list[tuple[str, str, object]] = [
        ("Description", "s", f"nestd guest {spec.name}"),
        ("Documentation", "as", ["man:nestd(8)"]),
        ("Slice", "s", "machine.slice"),
        ("CollectMode", "s", "inactive"),
        ("Type", "s", "exec"),
        # Not ExecStartEx, which could do without the doubling: systemd 252 writes it to the transient unit
        # file as a key that it does not know, and calls the unit bad after a daemon-reload.
        ("ExecStartPre", "a(sasb)", [[command[0], list(command), False] for command in before]),
        ("ExecStart", "a(sasb)", [[argv[0], [literal(value) for value in argv], False]]),
        ("LoadCredential", "a(ss)", [[name, path] for name, path in credentials.items()]),
        ("User", "s", str(account.uid)),
        ("Group", "s", str(account.gid)),
        ("SupplementaryGroups", "as", [KVM_GROUP] if kvm_group else []),
        ("UMask", "u", 0o077),
        ("RuntimeDirectory", "as", [f"{places.RUNTIME_DIRECTORY}/{spec.name}"]),
        ("RuntimeDirectoryMode", "u", 0o700),
        *([("StateDirectory", "as", [spec.state]), ("StateDirectoryMode", "u", 0o700)] if spec.state else []),
        ("StandardOutput", "s", "journal"),
        ("StandardError", "s", "journal"),
        # QEMU repeats what a guest says: it shall not choose its own priority.
        ("SyslogLevelPrefix", "b", False),
        ("KillMode", "s", "control-group"),
        ("TimeoutStartUSec", "t", int(START_LIMIT * 1e6)),
        ("TimeoutStopUSec", "t", _STOP_MICROSECONDS),
        *([("RuntimeMaxUSec", "t", spec.lifetime * 1_000_000)] if spec.lifetime else []),
        ("MemoryMax", "t", spec.memory + spec.memory // 8 + _OVERHEAD),
        ("TasksMax", "t", spec.vcpus + _TASKS),
        ("LimitCORE", "t", 0),
        ("DevicePolicy", "s", "closed"),
        ("DeviceAllow", "a(ss)", [["/dev/kvm", "rw"], *nodes]),
        ("ProtectSystem", "s", "strict"),
        ("ProtectHome", "s", "read-only"),
        ("ReadWritePaths", "as", writable),
        # Bounded by its size, charged to the guest, gone with it: a log in /run could fill /run.
        ("TemporaryFileSystem", "a(ss)",
         [[places.CONSOLE_LOGS, f"mode=0700,{owner},size={_CONSOLE_LOG_SIZE},nr_inodes=16"]]),
        ("RestrictNamespaces", "t", 0),
        ("RestrictSUIDSGID", "b", True),
        ("RestrictRealtime", "b", True),
        ("CapabilityBoundingSet", "t", 0),
        ("NoNewPrivileges", "b", True),
        ("LockPersonality", "b", True),
        ("ProtectKernelTunables", "b", True),
        ("ProtectControlGroups", "b", True),
        ("ProtectKernelLogs", "b", True),
        ("MemoryDenyWriteExecute", "b", True),
        ("SystemCallArchitectures", "as", ["native"]),
        ("SystemCallErrorNumber", "i", errno.EPERM),
        *(("SystemCallFilter", "(bas)", [allow, names]) for allow, names in _SYSTEM_CALLS),
        *(_networked(spec, account) if spec.network.kind == "user" else _ALONE),
    ]  # fmt: skip
    if spec.network.kind == "lab":
        settings.append(("StandardInputFileDescriptor", "h", 0))
    return [(name, Variant(signature, value)) for name, signature, value in settings]


def _networked(spec: GuestSpec, account: Account) -> list[tuple[str, str, object]]:
    files = (spec.kernel, spec.initrd, spec.cdrom, *(disk.path for disk in spec.disks))
    hidden = [["/run", "ro,mode=0755"]]
    listens = []
    if any(path.startswith("/tmp/") for path in files):  # noqa: S108 - somebody's own file
        listens = [*_LISTENS_IN_TMP, f"-/tmp/tmux-{account.uid}"]
    else:
        hidden.append(["/tmp", "ro,mode=0755"])  # noqa: S108 - as above
    own = f"{places.RUNTIME}/{spec.name}"
    return [
        ("PrivateNetwork", "b", False),
        ("RestrictAddressFamilies", "(bas)", [True, ["AF_UNIX", "AF_INET", "AF_INET6"]]),
        ("InaccessiblePaths", "as", [*_INACCESSIBLE, *listens]),
        ("TemporaryFileSystem", "a(ss)", hidden),
        ("BindPaths", "a(ssbt)", [[own, own, False, 0], *([path, path, True, 0] for path in _RUN)]),
    ]
