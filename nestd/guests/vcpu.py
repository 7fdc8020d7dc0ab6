# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a started guest's vCPU really got, and starting it.

`-cpu X,+svm` on a host that cannot give svm only warns, so the truth is in the guest that was created.
"""

from __future__ import annotations

from nestd import log, tasks
from nestd.guestmodel import VcpuVerdict
from nestd.host.qmpsocket import QmpRefused, QmpSocket
from nestd.host.root import Root
from nestd.model import Extension
from nestd.text import cpuinfo, qmp


async def ask(monitor: QmpSocket, root: Root, *extensions: Extension) -> VcpuVerdict:
    """Ask the first vCPU (all are the same) whether it has one of `extensions`, and what it was denied.

    That is compared with the flags of this machine, whose files `root` has. TimeoutError, QmpRefused,
    Malformed, OSError.
    """
    path = qmp.vcpu_path(await monitor.execute("query-cpus-fast"))
    got: dict[str, object] = {}
    for extension in extensions:
        try:
            got[extension] = await monitor.execute("qom-get", {"path": path, "property": extension.value})
        except QmpRefused:
            got[extension] = False  # a QEMU that has no such property cannot have given it
    filtered = await monitor.execute("qom-get", {"path": path, "property": "filtered-features"})
    features = await monitor.execute("qom-get", {"path": path, "property": "feature-words"})
    return qmp.verdict(got, filtered, features, await tasks.to_thread(_flags, root))


def _flags(root: Root) -> frozenset[str]:
    """This machine's. To be read in a thread: of hundreds of CPUs the kernel tells slowly."""
    try:
        return cpuinfo.flags(root.read("/proc/cpuinfo") or "")
    except OSError as error:
        log.warning(f"Which of this machine's flags a guest lacks cannot be told: {error}")
        return frozenset()


async def waits_to_run(monitor: QmpSocket) -> bool:
    """Whether the guest was created and never told to run. TimeoutError, QmpRefused, Malformed, OSError."""
    match await monitor.execute("query-status"):
        case {"status": "prelaunch"}:
            return True
    return False
