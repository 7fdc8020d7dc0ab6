# SPDX-License-Identifier: LGPL-2.1-or-later
"""When nobody uses the driver any more: waited for without polling.

Four things say that a reference may be gone. KVM announces each virtual machine that comes and goes as a
uevent of its misc device (virt/kvm/kvm_main.c, kvm_uevent_notify_change); inotify sees /dev/kvm closed; a
pidfd sees a process end; and whoever listens to the modules calls `nudge`. The reference itself goes a
moment later, so after each of them a few looks are taken within a second.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from nestd import log
from nestd.host.holders import holders, holds
from nestd.host.inotify import Inotify
from nestd.host.root import Root
from nestd.host.udev import UeventMonitor
from nestd.loop import running
from nestd.tasks import Event, sleep, timeout

_NODE = "/dev/kvm"
_CLOSED = 0x8 | 0x10  # IN_CLOSE_WRITE, IN_CLOSE_NOWRITE
# Seconds between the looks after an event, together less than one.
_LOOKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
# Seconds to the next look where no process shows that it holds the driver: the kernel takes its time with a
# large virtual machine that ends. Doubled each time: what lasts is waited for at most twice as long.
_UNSEEN = 0.5


class IdleWatch:
    """Waits until `used` says no. `with` it: it listens meanwhile."""

    def __init__(self, root: Root, used: Callable[[], bool]) -> None:
        self._root = root
        self._used = used
        self._happened = Event()
        self._monitor = UeventMonitor("misc", self._device, self._happened.set)
        self._inotify: Inotify | None = None
        self._nodes: set[int] = set()  # inotify's watches
        self._witness = 0  # a process that held the driver when it was last looked at
        self._pidfd = -1
        self._deaf = False

    def __enter__(self) -> IdleWatch:
        for source in (self._monitor.start, self._start_inotify):
            try:
                source()
            except OSError as failure:
                self._deaf = True
                log.warning(f"That the driver falls idle may be noticed late: {failure}")
        return self

    def __exit__(self, *_: object) -> None:
        self._monitor.close()
        self._dismiss()
        if self._inotify is not None:
            running().remove_reader(self._inotify.descriptor)
            self._inotify.close()
            self._inotify = None

    def nudge(self) -> None:
        """Something happened that may have to do with it: look."""
        self._happened.set()

    async def idle(self) -> None:
        """Return when nobody uses the driver. Raises what `used` raises, and OSError if /proc fails."""
        unseen = _UNSEEN
        while True:
            self._happened.clear()
            self._listen()
            for pause in _LOOKS:
                if not self._used():
                    return
                await sleep(pause)
            seen = self._find_witness() and not self._deaf
            # Who went before the witness was found was heard by nobody.
            if not self._used():
                return
            if seen:
                unseen = _UNSEEN
                await self._happened.wait()
                continue
            with suppress(TimeoutError):
                async with timeout(unseen):
                    await self._happened.wait()
            unseen *= 2

    def _device(self, _: str, name: str) -> None:
        if name == "kvm":
            self._happened.set()

    def _start_inotify(self) -> None:
        self._inotify = Inotify()
        self._watch_nodes()

    def _listen(self) -> None:
        """Hear of the next close. Of those before it once is enough: anybody may open and close all day."""
        if self._inotify is None:
            return
        with suppress(BlockingIOError):
            os.read(self._inotify.descriptor, 1 << 16)
        running().add_reader(self._inotify.descriptor, self._closed, self._inotify.descriptor)

    def _closed(self, descriptor: int) -> None:
        running().remove_reader(descriptor)
        self._happened.set()

    def _find_witness(self) -> bool:
        """See to it that one process is known which holds the driver: while it does, nothing is idle."""
        if self._witness and self._testifies():
            return True
        self._dismiss()
        for holder in holders(self._root):
            try:
                pidfd = os.pidfd_open(holder.pid)
            except OSError:
                continue  # gone meanwhile
            self._witness, self._pidfd = holder.pid, pidfd
            running().add_reader(pidfd, self._gone)
            if self._testifies():
                return True
            self._dismiss()
        return False

    def _testifies(self) -> bool:
        """Whether the witness holds the driver, and will be heard when it lets go."""
        self._watch_nodes()
        # Looked at once it is watched: a descriptor leaves the table before the node is closed.
        return self._open_nodes(self._witness) is not None

    def _open_nodes(self, pid: int) -> list[str] | None:
        """The process's descriptors of /dev/kvm, which may be a node of its own; None: it holds nothing."""
        folder = f"/proc/{pid}/fd"
        found = [(name, self._link(f"{folder}/{name}")) for name in self._names(folder)]
        if not any(holds(link) for _, link in found):
            return None
        return [f"{folder}/{name}" for name, link in found if link.endswith(_NODE)]

    def _names(self, folder: str) -> tuple[str, ...]:
        try:
            return self._root.names(folder)
        except PermissionError:
            return ()

    def _link(self, path: str) -> str:
        try:
            return self._root.link(path) or ""
        except PermissionError:  # what the kernel says of a process that ends just now
            return ""

    def _watch_nodes(self) -> None:
        """Watch /dev/kvm, and by way of its descriptors the node that the witness has opened."""
        if self._inotify is None:
            return
        now = set()
        for path in (_NODE, *((self._witness and self._open_nodes(self._witness)) or ())):
            # Not there (any more), or not ours to look at: then the other three tell.
            with suppress(OSError):
                now.add(self._inotify.add(self._root.path(path), _CLOSED))
        for watch in self._nodes - now:
            self._inotify.remove(watch)
        self._nodes = now

    def _gone(self) -> None:
        self._dismiss()
        self._happened.set()

    def _dismiss(self) -> None:
        if self._pidfd >= 0:
            running().remove_reader(self._pidfd)
            os.close(self._pidfd)
        self._witness, self._pidfd = 0, -1
