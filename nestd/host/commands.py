# SPDX-License-Identifier: LGPL-2.1-or-later
"""Running another program: the only place that starts a process."""

import os
import signal
from contextlib import suppress
from typing import NamedTuple

from nestd import tasks
from nestd.errors import ToolFailed, ToolMissing
from nestd.loop import Loop, running

# Bytes kept of each stream; the rest is read and thrown away.
_KEPT = 64 << 10
# Seconds: from SIGTERM to SIGKILL, from there to the end; and for the last output of one that has ended.
_GRACE = 2.0
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Completed(NamedTuple):
    """How a program ended: its exit status (or minus the signal's number) and what it wrote.

    `out` and `err` are the first 64 KiB of each, undecodable bytes kept (surrogateescape).
    """

    code: int
    out: str
    err: str


class _Drain:
    """Reads a pipe to its end and keeps the beginning."""

    def __init__(self, loop: Loop, pipe: int) -> None:
        self._loop = loop
        self._pipe = pipe
        self._kept = bytearray()
        self.ended: tasks.Future[None] = tasks.Future(loop)
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


def _spawn(program: str, argv: tuple[str, ...], path: str, out: int, err: int) -> int:
    """Start it with nothing but its three streams; its pid. OSError.

    What subprocess does, without its 800 kB and 4 ms: the start of nestd itself runs a program.
    """
    streams = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, out, 1),
        (os.POSIX_SPAWN_DUP2, err, 2),
    ]
    others = [(os.POSIX_SPAWN_CLOSE, int(fd)) for fd in os.listdir("/proc/self/fd") if int(fd) > 2]
    # rmmod takes a file of the current folder for its argument.
    here = os.open(".", os.O_PATH | os.O_CLOEXEC)
    try:
        os.chdir("/")
        return os.posix_spawn(
            program,
            argv,
            {"PATH": path, "LC_ALL": "C.UTF-8"},
            file_actions=[*streams, *others],
            setsid=True,
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # Python ignores them, its children must not
        )
    finally:
        os.fchdir(here)
        os.close(here)


class _Child:
    """A process in a session of its own; it is reaped when it ends, whoever waits for it."""

    def __init__(self, loop: Loop, program: str, argv: tuple[str, ...], path: str) -> None:
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        try:
            err_read, err_write = os.pipe2(os.O_CLOEXEC)
        except BaseException:
            os.close(out_read)
            os.close(out_write)
            raise
        try:
            self._pid = _spawn(program, argv, path, out_write, err_write)
        except BaseException:
            os.close(out_read)
            os.close(err_read)
            raise
        finally:
            os.close(out_write)
            os.close(err_write)
        self.ended: tasks.Future[int] = tasks.Future(loop)
        self.out = _Drain(loop, out_read)
        self.err = _Drain(loop, err_read)
        self._loop = loop
        self._pidfd = os.pidfd_open(self._pid)
        loop.add_reader(self._pidfd, self._reap)

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self.ended.set_result(os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1]))

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._pid, number)

    async def end(self) -> None:
        """Make sure that it is gone, and all its group: first asked, then killed."""
        if not self.ended.done():
            try:
                self._signal(signal.SIGTERM)
                await tasks.wait([self.ended], _GRACE)
            finally:
                self._signal(signal.SIGKILL)
            # One that sleeps in the kernel cannot be waited for; _reap gets it when it wakes.
            await tasks.wait([self.ended], _GRACE)
        self.out.close()
        self.err.close()


class Commands:
    """Programs found on `path` (as PATH has it; None: the environment's), which they get as theirs."""

    def __init__(self, path: str | None = None) -> None:
        self.path = os.environ.get("PATH", _DEFAULT_PATH) if path is None else path

    def find(self, name: str) -> str:
        """Where a program is. Raises ToolMissing."""
        for folder in self.path.split(":"):
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
            child = _Child(running(), program, argv, self.path)
        except OSError as error:
            raise ToolFailed(argv, 126, f"cannot be executed: {error.strerror}") from error
        try:
            async with tasks.timeout(limit):
                code = await child.ended
            await tasks.wait([child.out.ended, child.err.ended], _GRACE)
        except TimeoutError:
            words = child.err.text() or "it did not end"
            raise ToolFailed(argv, -1, f"{words.strip()} (stopped after {limit:g} s)") from None
        finally:
            await child.end()
        return Completed(code, child.out.text(), child.err.text())
