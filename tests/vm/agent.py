# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs commands inside the emulated machine; speaks JSON lines on a virtio-serial port.

Requests carry an `id` and `do`: run, input, kill, read, write, clock, ping. Answers carry the same id:
`out`/`err` (a piece, base64) as it appears, and one last `exit` (a number; negative: a signal), or
`error` (a sentence). At start the agent says `{"hello": BOOT_ID}`.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import functools
import json
import os
import pwd
import select
import selectors
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PORT = "org.nestd.agent"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PIECE = 49152


def find_port(name: str = PORT, limit: float = 30.0) -> Path:
    """Return the device of the virtio port `name`, waiting up to `limit` seconds for its driver."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        for label in Path("/sys/class/virtio-ports").glob("*/name"):
            device = Path("/dev") / label.parent.name
            if label.read_text().strip() == name and device.exists():
                return device
        time.sleep(0.05)
    raise SystemExit(f"no virtio port {name} after {limit:.0f} s")


class Command:
    """A process that was asked for, and what is still to be told about it."""

    def __init__(self, ident: str, process: subprocess.Popen[bytes], deadline: float | None) -> None:
        self.ident = ident
        self.process = process
        self.pidfd = os.pidfd_open(process.pid)
        self.deadline = deadline
        self.timed_out = False
        self.pending = bytearray()
        self.input_ends = True

    def signal(self, number: int) -> None:
        # Its own session: what it started goes with it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


class Agent:
    def __init__(self, port: int) -> None:
        self._port = port
        self._received = bytearray()
        self._commands: dict[str, Command] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(port, selectors.EVENT_READ, self._read_port)

    def serve(self) -> None:
        self._send({"hello": Path("/proc/sys/kernel/random/boot_id").read_text().strip()})
        while True:
            for key, _ in self._selector.select(self._patience()):
                # One callback may have ended the command that another of this round belongs to.
                if key.fd in self._selector.get_map():
                    key.data()
            self._end_late_ones()

    # -- the port ----------------------------------------------------------------------------------

    def _read_port(self) -> None:
        try:
            piece = os.read(self._port, 65536)
        except BlockingIOError:
            return
        if not piece:  # nobody on the other side: the port would be readable for ever
            time.sleep(0.1)
            return
        self._received += piece
        if b"\n" not in piece:
            return
        *lines, rest = bytes(self._received).split(b"\n")
        self._received = bytearray(rest)
        for line in filter(None, lines):
            self._take(line)

    def _send(self, answer: dict[str, Any]) -> None:
        line = memoryview(json.dumps(answer).encode() + b"\n")
        while line:
            try:
                line = line[os.write(self._port, line) :]
            except BlockingIOError:
                waiting = select.poll()
                waiting.register(self._port, select.POLLOUT)
                waiting.poll(100)

    def _take(self, line: bytes) -> None:
        ident = ""
        try:
            request = json.loads(line)
            ident = str(request["id"])
            verb = request["do"]
            if verb not in ("run", "input", "kill", "read", "write", "clock", "ping"):
                raise ValueError(f"unknown verb {verb}")
            getattr(self, f"_do_{verb}")(ident, request)
        except Exception as error:  # one bad request must not end the agent
            self._send({"id": ident, "error": f"{type(error).__name__}: {error}"})

    # -- verbs -------------------------------------------------------------------------------------

    def _do_ping(self, ident: str, _request: dict[str, Any]) -> None:
        self._send({"id": ident, "exit": 0})

    def _do_clock(self, ident: str, request: dict[str, Any]) -> None:
        time.clock_settime(time.CLOCK_REALTIME, float(request["unix"]))
        self._send({"id": ident, "exit": 0})

    def _do_read(self, ident: str, request: dict[str, Any]) -> None:
        with Path(request["path"]).open("rb") as file:
            while piece := file.read(_PIECE):
                self._send({"id": ident, "out": base64.b64encode(piece).decode()})
        self._send({"id": ident, "exit": 0})

    def _do_write(self, ident: str, request: dict[str, Any]) -> None:
        path = Path(request["path"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(request["data"]))
        path.chmod(int(request["mode"]))
        if user := request.get("user"):
            entry = pwd.getpwnam(user)
            os.chown(path, entry.pw_uid, entry.pw_gid)
        self._send({"id": ident, "exit": 0})

    def _do_run(self, ident: str, request: dict[str, Any]) -> None:
        entry = pwd.getpwnam(request.get("user") or "root")
        home = entry.pw_dir if Path(entry.pw_dir).is_dir() else "/"
        environment = {
            "PATH": _PATH,
            "LANG": "C.UTF-8",
            "HOME": home,
            "USER": entry.pw_name,
            "LOGNAME": entry.pw_name,
            "SHELL": entry.pw_shell,
            **request.get("env", {}),
        }
        identity: dict[str, Any] = {}
        if entry.pw_uid != 0:
            groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
            identity = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": groups}
        process = subprocess.Popen(
            request["argv"],
            stdin=subprocess.PIPE if request.get("stdin") is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=request.get("cwd") or home,
            start_new_session=True,
            **identity,
        )
        limit = request.get("timeout")
        command = Command(ident, process, None if limit is None else time.monotonic() + float(limit))
        self._commands[ident] = command
        assert process.stdout is not None and process.stderr is not None
        for stream, name in ((process.stdout, "out"), (process.stderr, "err")):
            os.set_blocking(stream.fileno(), False)
            self._watch(stream.fileno(), functools.partial(self._forward, command, stream.fileno(), name))
        self._watch(command.pidfd, lambda: self._finish(command))
        if process.stdin is not None:
            os.set_blocking(process.stdin.fileno(), False)
            self._feed(command, base64.b64decode(request["stdin"]), not request.get("more_input", False))

    def _do_input(self, ident: str, request: dict[str, Any]) -> None:
        command = self._commands.get(ident)
        if command is not None:
            self._feed(command, base64.b64decode(request.get("data", "")), bool(request.get("eof")))

    def _do_kill(self, ident: str, request: dict[str, Any]) -> None:
        command = self._commands.get(ident)
        if command is not None:
            command.signal(int(request.get("signal", signal.SIGTERM)))

    # -- commands under way ------------------------------------------------------------------------

    def _watch(self, fd: int, react: Callable[[], object], event: int = selectors.EVENT_READ) -> None:
        self._selector.register(fd, event, react)

    def _unwatch(self, fd: int) -> None:
        if fd in self._selector.get_map():
            self._selector.unregister(fd)

    def _forward(self, command: Command, fd: int, name: str) -> bool:
        """Pass on what is there; False when there is nothing more (for now or for ever)."""
        try:
            piece = os.read(fd, _PIECE)
        except BlockingIOError:
            return False
        if not piece:
            self._unwatch(fd)
            return False
        self._send({"id": command.ident, name: base64.b64encode(piece).decode()})
        return True

    def _feed(self, command: Command, data: bytes, ends: bool) -> None:
        stdin = command.process.stdin
        if stdin is None or stdin.closed:
            return
        command.pending += data
        command.input_ends = ends
        self._write_input(command)

    def _write_input(self, command: Command) -> None:
        stdin = command.process.stdin
        assert stdin is not None
        fd = stdin.fileno()
        try:
            while command.pending:
                del command.pending[: os.write(fd, command.pending)]
        except BlockingIOError:
            if fd not in self._selector.get_map():
                self._watch(fd, lambda: self._write_input(command), selectors.EVENT_WRITE)
            return
        except OSError as error:
            if error.errno != errno.EPIPE:
                raise
            command.pending.clear()
            command.input_ends = True
        self._unwatch(fd)
        if command.input_ends:
            stdin.close()

    def _finish(self, command: Command) -> None:
        """The process is gone: tell what its pipes still hold, without waiting for who inherited them."""
        code = command.process.wait()
        self._unwatch(command.pidfd)
        os.close(command.pidfd)
        for stream, name in ((command.process.stdout, "out"), (command.process.stderr, "err")):
            assert stream is not None
            end = time.monotonic() + 2.0  # a heir that never stops writing must not hold us
            while time.monotonic() < end and self._forward(command, stream.fileno(), name):
                pass
            self._unwatch(stream.fileno())
            stream.close()
        stdin = command.process.stdin
        if stdin is not None and not stdin.closed:
            self._unwatch(stdin.fileno())
            stdin.close()
        del self._commands[command.ident]
        self._send({"id": command.ident, "exit": code, "timed_out": command.timed_out})

    def _patience(self) -> float | None:
        ends = [command.deadline for command in self._commands.values() if command.deadline is not None]
        return max(0.0, min(ends) - time.monotonic()) if ends else None

    def _end_late_ones(self) -> None:
        now = time.monotonic()
        for command in self._commands.values():
            if command.deadline is not None and command.deadline <= now:
                command.deadline = None
                command.timed_out = True
                command.signal(signal.SIGKILL)


def main() -> None:
    Agent(os.open(find_port(), os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)).serve()


if __name__ == "__main__":
    main()
