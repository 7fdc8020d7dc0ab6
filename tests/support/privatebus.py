# SPDX-License-Identifier: LGPL-2.1-or-later
"""A private message bus with the stock system policy: a real dbus-daemon or a real dbus-broker."""

from __future__ import annotations

import os
import re
import select
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from types import TracebackType

STOCK = Path("/usr/share/dbus-1/system.conf")

# A container may not raise its limit of open files: that is no complaint about the configuration.
_NO_COMPLAINT = "Failed to set fd limit"

_REFUSED = "A security policy denied"

_BROKER = """
mount -t tmpfs none /run
mkdir -p /run/systemd
ln -s "$1/journal" /run/systemd/journal
export LISTEN_PID=$$ LISTEN_FDS=1
exec 3<&"$2"
exec dbus-broker-launch --scope system --config-file "$1/system.conf"
"""


class Kind(StrEnum):
    """Which implementation; dbus-broker forwards what dbus-daemon filters."""

    DAEMON = "dbus-daemon"
    BROKER = "dbus-broker"


class PrivateBus:
    """One bus for one test: `with PrivateBus(policies=[path]) as bus: connect to bus.address`.

    The configuration is the stock system.conf with its listen address, its user and its activation
    helper taken out and the policies of /usr/share/dbus-1/system.d left in; `policies` are files
    included after those, `policy` is text put inside a <busconfig> of its own, `services` are
    folders with activation files (dbus-daemon only, started directly). Every user can reach the
    socket. Leaving the context fails if the bus complained, unless `complaints_expected` was set.
    dbus-broker needs root: it is given a journal and a systemd to talk to in a mount namespace.
    """

    def __init__(
        self,
        *,
        policies: Sequence[Path] = (),
        policy: str = "",
        services: Sequence[Path] = (),
        kind: Kind = Kind.DAEMON,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="nestd-bus-"))
        self.folder.chmod(0o755)
        self.address = f"unix:path={self.folder}/bus"
        self.complaints_expected = False
        self._kind = kind
        self._sockets: list[socket.socket] = []
        self._reader: threading.Thread | None = None
        self._journal: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._configure(policies, policy, services)

    @property
    def environment(self) -> dict[str, str]:
        """This process's environment with this bus as the system bus, and no session bus."""
        kept = {k: v for k, v in os.environ.items() if k != "DBUS_SESSION_BUS_ADDRESS"}
        return kept | {"DBUS_SYSTEM_BUS_ADDRESS": self.address}

    @property
    def pid(self) -> int:
        """The process that was started (dbus-broker: its launcher)."""
        if self._process is None:
            raise RuntimeError("the bus does not run")
        return self._process.pid

    def complaints(self) -> str:
        """What the bus wrote to stderr: a broken policy file, and what was refused for the policy.

        dbus-broker says the latter to the journal, where it also complains of clients: that is left out.
        """
        lines = (self.folder / "stderr").read_text(errors="replace").splitlines()
        lines += [line for text in self._journal for line in text.splitlines() if _REFUSED in line]
        return "\n".join(line for line in lines if _NO_COMPLAINT not in line)

    def start(self) -> None:
        """Start the bus and wait until it can be connected to."""
        environment = dict(os.environ)
        inherited: list[int] = []
        if self._kind is Kind.BROKER:
            (self.folder / "journal").mkdir(exist_ok=True)
            journal = self._listen(socket.SOCK_DGRAM, self.folder / "journal" / "socket")
            # dbus-broker would wait for a journal that nobody reads.
            self._reader = threading.Thread(target=_drain, args=(journal, self._journal))
            self._reader.start()
            self._listen(socket.SOCK_STREAM, self.folder / "systemd")
            environment["DBUS_SYSTEM_BUS_ADDRESS"] = f"unix:path={self.folder}/systemd"
            listening = self._listen(socket.SOCK_STREAM, self.folder / "bus").fileno()
            (self.folder / "bus").chmod(0o666)
            inherited = [listening]
            argv = ["unshare", "-m", "bash", "-ec", _BROKER, "bash", str(self.folder), str(listening)]
        else:
            argv = ["dbus-daemon", "--nofork", "--nopidfile", f"--config-file={self.folder}/system.conf"]
        with (self.folder / "stderr").open("wb") as errors:
            self._process = subprocess.Popen(
                argv, env=environment, stdout=errors, stderr=errors, pass_fds=inherited
            )
        self._wait_until_it_answers()

    def stop(self) -> None:
        """End the bus, as the end of the machine would; may be called twice."""
        if self._process is not None:
            # On SIGTERM the launcher would first wait for a word from its mute systemd.
            children: list[str] = []
            with suppress(FileNotFoundError):  # it did not even start
                children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
            self._process.kill()
            self._process.wait(10)
            for child in children:
                # dbus-broker ends with its launcher. It is ours to reap if this process adopts orphans.
                with suppress(ChildProcessError):
                    os.waitpid(int(child), 0)
            self._process = None
        if self._reader is not None:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
                last.sendto(b"", str(self.folder / "journal" / "socket"))
            self._reader.join(10)
            self._reader = None
        for held in self._sockets:
            held.close()
        self._sockets.clear()

    def __enter__(self) -> PrivateBus:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        complaints = self.complaints()
        shutil.rmtree(self.folder)
        if kind is None and not self.complaints_expected and complaints:
            raise AssertionError(f"{self._kind} complained: {complaints}")

    def _configure(self, policies: Sequence[Path], policy: str, services: Sequence[Path]) -> None:
        text = STOCK.read_text()
        for tag in ("user", "listen", "pidfile", "servicehelper", "includedir", "include"):
            text = re.sub(rf"<{tag}[ >][^<]*</{tag}>", "", text)
        for tag in ("fork", "syslog", "standard_system_servicedirs"):
            text = text.replace(f"<{tag}/>", "")
        (self.folder / "own.conf").write_text(f"<busconfig>{policy}</busconfig>")
        own = [f"<listen>{self.address}</listen>", f"<includedir>{STOCK.parent}/system.d</includedir>"]
        own += [f"<include>{x}</include>" for x in [*policies, self.folder / "own.conf"]]
        own += [f"<servicedir>{x}</servicedir>" for x in services]
        text = text.replace("</busconfig>", "\n".join(own) + "\n</busconfig>")
        (self.folder / "system.conf").write_text(text)

    def _listen(self, kind: socket.SocketKind, path: Path) -> socket.socket:
        path.unlink(missing_ok=True)
        held = socket.socket(socket.AF_UNIX, kind)
        held.bind(str(path))
        if kind is socket.SOCK_STREAM:
            held.listen(64)
        self._sockets.append(held)
        return held

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                break
            if self._answers():
                return
            time.sleep(0.01)
        raise RuntimeError(f"{self._kind} does not start: {self.complaints()}")

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(10)
            try:
                probe.connect(str(self.folder / "bus"))
                probe.sendall(b"\0AUTH EXTERNAL " + str(os.getuid()).encode().hex().encode() + b"\r\n")
                return bool(select.select([probe], [], [], 10)[0]) and probe.recv(100).startswith(b"OK")
            except OSError:
                return False


def _drain(journal: socket.socket, read: list[str]) -> None:
    """Read until an empty datagram comes."""
    while data := journal.recv(1 << 16):
        read.append(data.decode(errors="replace"))
