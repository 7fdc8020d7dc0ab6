# SPDX-License-Identifier: LGPL-2.1-or-later
"""The host's side of agent.py: many commands at a time over one wire."""

from __future__ import annotations

import base64
import itertools
import json
import shlex
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.vm.problem import CommandError, OutOfTimeError, VmError

# How long the agent may take to say that a command ended, after the command's own limit.
_GRACE = 30.0


@dataclass(frozen=True, slots=True)
class Result:
    """How a command in the machine ended; `code` is negative for a signal, `seconds` as the host saw it."""

    argv: tuple[str, ...]
    code: int
    stdout: str
    stderr: str
    seconds: float

    def __bool__(self) -> bool:
        return self.code == 0


# Seconds. With many guests the emulated processor now and then sleeps through its timer, until something else
# wakes it up: seen with QEMU 7.2, 42 guests under KVM in it, and a quarter of an hour without a tick.
_NUDGE = 5.0


class Running:
    """A command in the machine that was started; made by AgentClient.start."""

    def __init__(self, client: AgentClient, ident: str, argv: Sequence[str], limit: float | None) -> None:
        self._client = client
        self.ident = ident
        self.argv = tuple(argv)
        self.limit = limit
        self.stdout = bytearray()
        self.stderr = bytearray()
        self.code: int | None = None
        self.error: str | None = None
        self.timed_out = False
        self.began = time.monotonic()
        self.ended = self.began

    def wait(self, limit: float | None = None) -> Result:
        """Return when it has ended.

        Raises OutOfTimeError if its own limit, or `limit` seconds from now, are over, VmError if it could
        not start.
        """
        patience = limit if limit is not None else (self.limit or 86400.0) + _GRACE
        self._client.wait(lambda: self._over, patience, f"{self}: not ended")
        if self.error is not None:
            raise VmError(f"{self}: {self.error}")
        if self.timed_out:
            raise OutOfTimeError(f"{self}: killed after its {self.limit:.0f} s\n{self._said()}")
        assert self.code is not None
        return Result(self.argv, self.code, _text(self.stdout), _text(self.stderr), self.ended - self.began)

    def wait_for(self, text: str, limit: float = 30.0) -> str:
        """Return its standard output up to now as soon as `text` is in it.

        Raises OutOfTimeError after `limit` seconds, CommandError if it ended without.
        """
        wanted = text.encode()
        self._client.wait(
            lambda: wanted in self.stdout or self._over, limit, f"{self}: no {text!r}", self._said
        )
        if wanted not in self.stdout:
            raise CommandError(f"{self}: ended with {self.code} and never said {text!r}\n{self._said()}")
        return _text(self.stdout)

    def write(self, data: str | bytes) -> None:
        """Give it input; it must have been started with `interactive`."""
        self._client.send(self.ident, "input", data=_encoded(data))

    def close_input(self) -> None:
        self._client.send(self.ident, "input", data="", eof=True)

    def kill(self, number: int = 15) -> None:
        """Send signal `number` to it and all it started in its session."""
        self._client.send(self.ident, "kill", signal=int(number))

    @property
    def _over(self) -> bool:
        return self.code is not None or self.error is not None

    def _said(self) -> str:
        return f"stdout: {_text(self.stdout)[-2000:]!r}\nstderr: {_text(self.stderr)[-2000:]!r}"

    def __str__(self) -> str:
        return shlex.join(self.argv)[:200]


class AgentClient:
    """Owns `wire`. `check` is called while waiting, and raises if the machine is dead."""

    def __init__(self, wire: socket.socket, check: Callable[[], None]) -> None:
        self._wire = wire
        self._check = check
        self._changed = threading.Condition()
        self._numbers = itertools.count(1)
        self._running: dict[str, Running] = {}
        self._sending = threading.Lock()
        self.boot_id = ""
        self._thread = threading.Thread(target=self._read, name="vm-agent", daemon=True)
        self._thread.start()

    def start(
        self,
        argv: Sequence[str],
        *,
        user: str = "root",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: str | bytes | None = None,
        interactive: bool = False,
        limit: float | None = 120.0,
    ) -> Running:
        """Start a command; after `limit` seconds it is killed with all it started."""
        given = _encoded(stdin or b"") if stdin is not None or interactive else None
        fields: dict[str, Any] = {"argv": list(argv), "user": user, "env": dict(env or {}), "cwd": cwd}
        fields |= {"stdin": given, "more_input": interactive, "timeout": limit}
        return self._begin("run", argv, limit, fields)

    def ask(self, verb: str, limit: float = 30.0, **fields: Any) -> bytes:
        """Run a verb of the agent's own and return what it gave; raises VmError with the agent's words."""
        running = self._begin(verb, (verb,), limit, fields)
        running.wait(limit)
        return bytes(running.stdout)

    def ping(self, limit: float) -> None:
        """Return when the agent answers; asks again, for it may not be there yet."""
        end = time.monotonic() + limit
        while True:
            try:
                self.ask("ping", min(2.0, limit))
                return
            except OutOfTimeError:
                if time.monotonic() > end:
                    raise

    def send(self, ident: str, verb: str, **fields: Any) -> None:
        line = json.dumps({"id": ident, "do": verb, **fields}).encode() + b"\n"
        try:
            with self._sending:
                self._wire.sendall(line)
        except OSError as error:
            self._check()
            raise VmError(f"the machine's agent cannot be reached: {error}") from error

    def wait(
        self, done: Callable[[], bool], limit: float, what: str, said: Callable[[], str] | None = None
    ) -> None:
        """Return when `done`; raises OutOfTimeError after `limit` seconds, or what `check` raises."""
        now = time.monotonic()
        end, nudge = now + limit, now + _NUDGE
        with self._changed:
            while not done():
                self._check()
                now = time.monotonic()
                if now >= end:
                    raise OutOfTimeError(f"{what} after {limit:.0f} s" + (f"\n{said()}" if said else ""))
                if now >= nudge and self.boot_id:
                    self.send("nudge", "ping")  # the answer is nobody's
                    nudge = now + _NUDGE
                self._changed.wait(min(end - now, 0.2))

    def wake(self) -> None:
        """Let every waiter call `check` now."""
        with self._changed:
            self._changed.notify_all()

    def unfinished(self) -> list[str]:
        """Return the commands that have not ended."""
        with self._changed:
            return [str(running) for running in self._running.values()]

    def forget(self, why: str) -> None:
        """The machine was put back in time: what runs now will never be heard of again."""
        with self._changed:
            for running in self._running.values():
                running.error = why
            self._running.clear()
            self._changed.notify_all()

    def close(self) -> None:
        """Wait for the reader to end; QEMU must be gone."""
        self._thread.join(timeout=10)
        self._wire.close()
        self.forget("the machine was switched off")

    def _begin(self, verb: str, argv: Sequence[str], limit: float | None, fields: dict[str, Any]) -> Running:
        with self._changed:
            running = Running(self, str(next(self._numbers)), argv, limit)
            self._running[running.ident] = running
        self.send(running.ident, verb, **fields)
        return running

    def _read(self) -> None:
        buffer = bytearray()
        while piece := self._receive():
            buffer += piece
            if b"\n" not in piece:
                continue
            *lines, rest = bytes(buffer).split(b"\n")
            buffer = bytearray(rest)
            with self._changed:
                for line in filter(None, lines):
                    self._take(line)
                self._changed.notify_all()

    def _receive(self) -> bytes:
        try:
            return self._wire.recv(1 << 18)
        except OSError:
            return b""

    def _take(self, line: bytes) -> None:
        try:
            message: dict[str, Any] = json.loads(line)
        except ValueError:  # the first half was said before a snapshot was loaded
            return
        if "hello" in message:
            self.boot_id = str(message["hello"])
            return
        running = self._running.get(str(message.get("id")))
        if running is None:
            return
        if "out" in message:
            running.stdout += base64.b64decode(message["out"])
        elif "err" in message:
            running.stderr += base64.b64decode(message["err"])
        else:
            running.error = message.get("error")
            running.timed_out = bool(message.get("timed_out"))
            running.ended = time.monotonic()
            running.code = message.get("exit")
            del self._running[running.ident]


def _encoded(data: str | bytes) -> str:
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


def _text(data: bytes | bytearray) -> str:
    return bytes(data).decode(errors="replace")
