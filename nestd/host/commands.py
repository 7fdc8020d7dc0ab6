# SPDX-License-Identifier: LGPL-2.1-or-later
"""Running another program: the only place that starts a process."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass

from nestd.errors import ToolFailed, ToolMissing

# Bytes kept of each stream; the rest is read and thrown away.
_KEPT = 64 << 10
# Seconds: from SIGTERM to SIGKILL, from there to the end; and for the last output of one that has ended.
_GRACE = 2.0
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Completed:
    """How a program ended: its exit status (or minus the signal's number) and what it wrote.

    `out` and `err` are the first 64 KiB of each, undecodable bytes kept (surrogateescape).
    """

    code: int
    out: str
    err: str


class _Drain:
    """Reads a pipe to its end and keeps the beginning."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pipe: int) -> None:
        self._loop = loop
        self._pipe = pipe
        self._kept = bytearray()
        self.ended: asyncio.Future[None] = loop.create_future()
        os.set_blocking(pipe, False)
        loop.add_reader(pipe, self._read)

    def _read(self) -> None:
        try:
            piece = os.read(self._pipe, _KEPT)
        except BlockingIOError:
            return
        self._kept += piece[: _KEPT - len(self._kept)]
        if not piece:
            self.close()

    def close(self) -> None:
        if not self.ended.done():
            self._loop.remove_reader(self._pipe)
            os.close(self._pipe)
            self.ended.set_result(None)

    def text(self) -> str:
        return self._kept.decode("utf-8", "surrogateescape")


class _Child:
    """A process in a session of its own; it is reaped when it ends, whoever waits for it."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, program: str, argv: tuple[str, ...], path: str
    ) -> None:
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        err_read, err_write = os.pipe2(os.O_CLOEXEC)
        try:
            self._process = subprocess.Popen(
                argv,
                executable=program,
                stdin=subprocess.DEVNULL,
                stdout=out_write,
                stderr=err_write,
                # rmmod takes a file of the current folder for its argument.
                cwd="/",
                env={"PATH": path, "LC_ALL": "C.UTF-8"},
                start_new_session=True,
            )
        except BaseException:
            os.close(out_read)
            os.close(err_read)
            raise
        finally:
            os.close(out_write)
            os.close(err_write)
        self.ended: asyncio.Future[int] = loop.create_future()
        self.out = _Drain(loop, out_read)
        self.err = _Drain(loop, err_read)
        self._loop = loop
        # asyncio's own way takes a thread for each process on Python 3.11, and waits for whoever
        # has inherited the pipes.
        self._pidfd = os.pidfd_open(self._process.pid)
        loop.add_reader(self._pidfd, self._reap)

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self.ended.set_result(self._process.wait())

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    async def end(self) -> None:
        """Make sure that it is gone, and all its group: first asked, then killed."""
        if not self.ended.done():
            try:
                self._signal(signal.SIGTERM)
                await asyncio.wait([self.ended], timeout=_GRACE)
            finally:
                self._signal(signal.SIGKILL)
            # One that sleeps in the kernel cannot be waited for; _reap gets it when it wakes.
            await asyncio.wait([self.ended], timeout=_GRACE)
        self.out.close()
        self.err.close()


class Commands:
    """Programs found on `path` (as PATH has it; None: the environment's)."""

    def __init__(self, path: str | None = None) -> None:
        self._path = os.environ.get("PATH", _DEFAULT_PATH) if path is None else path

    def find(self, name: str) -> str:
        """Where a program is. Raises ToolMissing."""
        for folder in self._path.split(":"):
            program = os.path.join(folder, name)
            if folder and os.path.isfile(program) and os.access(program, os.X_OK):
                return program
        raise ToolMissing(name)

    async def run(self, *argv: str, limit: float = 30.0) -> Completed:
        """Run a program to its end, within `limit` seconds; an exit status other than 0 is no error here.

        It reads nothing, sees only PATH and LC_ALL=C.UTF-8, stands in "/" and has a session of its
        own. Cancelled or out of time, it and its session are ended and reaped before this returns.
        Children that it leaves behind in good order are left alone. Raises ToolMissing, and
        ToolFailed: code -1 when the limit runs out, 126 when it cannot be executed.
        """
        program = self.find(argv[0])
        try:
            child = _Child(asyncio.get_running_loop(), program, argv, self._path)
        except OSError as error:
            raise ToolFailed(argv, 126, f"cannot be executed: {error.strerror}") from error
        try:
            async with asyncio.timeout(limit):
                code = await asyncio.shield(child.ended)
            await asyncio.wait([child.out.ended, child.err.ended], timeout=_GRACE)
        except TimeoutError:
            words = child.err.text() or "it did not end"
            raise ToolFailed(argv, -1, f"{words.strip()} (stopped after {limit:g} s)") from None
        finally:
            await child.end()
        return Completed(code, child.out.text(), child.err.text())
