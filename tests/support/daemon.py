# SPDX-License-Identifier: LGPL-2.1-or-later
"""The real nestd as a process on a private bus, with the machine that a tree describes or with this one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from tests.support.clients import LIMIT, NAME, Client
from tests.support.privatebus import PrivateBus
from tests.support.tools import Tools
from tests.support.tree import Tree

TOP = Path(__file__).resolve().parents[2]
POLICY = TOP / "data" / "org.nestd1.conf"

# A uevent in the kernel's format (lib/kobject_uevent.c); the kernel adds SEQNUM and broadcasts it when a
# process with CAP_SYS_ADMIN hands it one over NETLINK_KOBJECT_UEVENT (15).
_SEND_UEVENT = """
import socket, struct, sys
action, path, subsystem = sys.argv[1:]
text = f"{action}@{path}\\0ACTION={action}\\0DEVPATH={path}\\0SUBSYSTEM={subsystem}\\0"
header = struct.pack("=IHHII", 16 + len(text), 16, 1, 1, 0)  # struct nlmsghdr: NLMSG_MIN_TYPE, NLM_F_REQUEST
with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 15) as out:
    out.sendto(header + text.encode(), (0, 0))
"""


def by_hand(tools: Tools, *argv: str) -> None:
    """Run one of the tree's programs as somebody else would, past nestd."""
    subprocess.run([tools.folder / argv[0], *argv[1:]], check=True, timeout=LIMIT)


class Daemon:
    """nestd on `bus`, started and stopped by `with`; leaving it asserts a clean end on SIGTERM.

    With a `tree` it is nestd.service on that machine (tests/support/daemon_main.py), without one
    `python -m nestd` on the real one. `read_only` are folders of the tree that are mounted so for
    it. It has a network namespace of its own, so that uevents are those of `uevent` alone. `journal` is
    the folder that it sees as /run/systemd/journal.
    """

    def __init__(
        self,
        bus: PrivateBus,
        tree: Tree | None = None,
        read_only: Sequence[Path] = (),
        journal: Path | None = None,
    ) -> None:
        self._bus = bus
        self._argv = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-ec"]
        mounts = [f'mount --bind "{path}" "{path}"; mount -o remount,bind,ro "{path}"' for path in read_only]
        if journal is not None:
            shown = "/run/systemd/journal"
            mounts += [f'mount -t tmpfs none /run; mkdir /run/systemd; ln -s "{journal}" {shown}']
        self._argv += ["; ".join([*mounts, 'exec "$@"']), "sh", sys.executable, "-m"]
        if tree is None:
            self._argv += ["nestd", f"--bus={bus.address}"]
        else:
            self._argv += ["tests.support.daemon_main", bus.address, str(tree.top)]
        self._folder = tempfile.TemporaryDirectory(prefix="nestd-daemon-")
        self._notified = Path(self._folder.name) / "notify"
        self._process: subprocess.Popen[bytes] | None = None
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    @property
    def pid(self) -> int:
        """The daemon's process: what was executed on the way to it has the same."""
        assert self._process is not None
        return self._process.pid

    def stderr(self) -> str:
        """What it has written."""
        return (Path(self._folder.name) / "stderr").read_text(errors="replace")

    def uevent(self, action: str, module: str) -> None:
        """Have the kernel tell the daemon's network namespace that a module came or went."""
        self._uevent(action, f"/module/{module}", "module")

    def machine_event(self) -> None:
        """The same, that a virtual machine came or went (virt/kvm/kvm_main.c, kvm_uevent_notify_change)."""
        self._uevent("change", "/devices/virtual/misc/kvm", "misc")

    def _uevent(self, *event: str) -> None:
        enter = ["nsenter", "-t", str(self.pid), "--net", sys.executable, "-I", "-S", "-c", _SEND_UEVENT]
        subprocess.run([*enter, *event], check=True, timeout=LIMIT)

    def notified(self, word: str) -> str:
        """Wait until it has sent systemd a message with that line; the whole message."""
        deadline = time.monotonic() + LIMIT
        while True:
            self._notify.settimeout(max(0.001, deadline - time.monotonic()))
            message = self._notify.recv(4096).decode()
            if word in message.split("\n"):
                return message

    def notified_so_far(self) -> list[str]:
        """What it has sent systemd and nobody has read yet. systemd reads at once; a full queue blocks it."""
        messages = []
        self._notify.settimeout(0)
        with suppress(BlockingIOError):
            while True:
                messages.append(self._notify.recv(4096).decode())
        return messages

    def start(self, environment: dict[str, str] | None = None) -> None:
        """Start it and wait until its name is owned."""
        self.spawn(environment)
        assert self._process is not None
        deadline = time.monotonic() + LIMIT
        with Client(self._bus.address) as client:
            while not client.owner_of(NAME):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"nestd does not start: {self.stderr()}")
                time.sleep(0.01)

    def spawn(self, environment: dict[str, str] | None = None) -> None:
        """Start it and wait for nothing."""
        self._notify.bind(str(self._notified))
        kept = {name: value for name, value in self._bus.environment.items() if name != "WATCHDOG_USEC"}
        kept |= {"NOTIFY_SOCKET": str(self._notified), "PYTHONPATH": str(TOP), "PYTHONWARNINGS": "error"}
        with (Path(self._folder.name) / "stderr").open("wb") as errors:
            self._process = subprocess.Popen(
                self._argv, env=kept | (environment or {}), stdout=errors, stderr=errors, cwd="/"
            )

    def ended(self) -> int:
        """Wait until it ends by itself; its exit code."""
        assert self._process is not None
        return self._process.wait(LIMIT)

    def stop(self) -> int:
        """SIGTERM, and the exit code; one that does not end is killed, which is an error."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self.ended()

    def close(self) -> None:
        """Whatever became of it, nothing is left."""
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._notify.close()
        self._folder.cleanup()

    def __enter__(self) -> Daemon:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                assert self._process is not None
                assert self._process.poll() is None, f"nestd has ended by itself: {self.stderr()}"
                assert self.stop() == 0, self.stderr()
                assert "Traceback" not in self.stderr(), self.stderr()
            else:
                print(self.stderr(), file=sys.stderr)
        finally:
            self.close()
