# SPDX-License-Identifier: LGPL-2.1-or-later
"""The emulated machine, as tests and people use it."""

from __future__ import annotations

import base64
import contextlib
import re
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from tests.vm import console, parcel, terminal
from tests.vm.agent_client import Result, Running
from tests.vm.emulator import Emulator
from tests.vm.hardware import Files, Hardware
from tests.vm.problem import CommandError, VmError
from tests.vm.progress import Progress, silent

# Ten times what a quiet machine takes: two noisy cores are shared with whatever else runs.
BOOT_LIMIT = 240.0


class Machine:
    """A machine with a disk of its own in `folder`; get one from tests.vm.boot.

    Times are seconds. Whatever waits raises OutOfTimeError with the console's end when its limit is over, and
    KernelPanicError or MachineDiedError as soon as that happens.
    """

    def __init__(
        self,
        files: Files,
        folder: Path,
        config: Hardware | None = None,
        progress: Progress = silent,
        snapshot: str | None = None,
    ) -> None:
        self._files = files
        self._folder = folder
        self._plain = config or Hardware()
        self._config = self._plain
        self._progress = progress
        self.log = folder / "console.log"
        parcel.blank(files.push)
        self._emulator = self._launch(snapshot)

    # -- commands ----------------------------------------------------------------------------------

    def start(
        self,
        argv: Sequence[str],
        *,
        user: str = "root",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: str | bytes | None = None,
        interactive: bool = False,
        timeout: float | None = 120.0,
    ) -> Running:
        """Start a command and return at once; after `timeout` it is killed with all it started."""
        return self._emulator.agent.start(
            argv, user=user, env=env, cwd=cwd, stdin=stdin, interactive=interactive, limit=timeout
        )

    def run(
        self,
        argv: Sequence[str],
        *,
        user: str = "root",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: str | bytes | None = None,
        timeout: float = 120.0,
        check: bool = True,
    ) -> Result:
        """Run a command to its end; raises CommandError if `check` and it ends with something else than 0."""
        result = self.start(argv, user=user, env=env, cwd=cwd, stdin=stdin, timeout=timeout).wait()
        if check and result.code != 0:
            raise CommandError(
                f"{' '.join(argv)[:300]} (as {user}) ended with {result.code}\n"
                f"stdout: {result.stdout[-3000:]}\nstderr: {result.stderr[-3000:]}"
            )
        return result

    def sh(
        self,
        script: str,
        *,
        user: str = "root",
        env: Mapping[str, str] | None = None,
        stdin: str | bytes | None = None,
        timeout: float = 120.0,
        check: bool = True,
    ) -> Result:
        """Run a text of bash, which stops at its first failing command."""
        return self.run(
            ["bash", "-euo", "pipefail", "-c", script],
            user=user,
            env=env,
            stdin=stdin,
            timeout=timeout,
            check=check,
        )

    def out(self, *argv: str, user: str = "root") -> str:
        """Return what a command says, without the white space around it."""
        return self.run(argv, user=user).stdout.strip()

    @contextlib.contextmanager
    def background(
        self, argv: Sequence[str], *, user: str = "root", env: Mapping[str, str] | None = None
    ) -> Iterator[Running]:
        """Give a command that runs meanwhile and is killed at the end (wait_for reads what it says)."""
        running = self.start(argv, user=user, env=env, interactive=True, timeout=None)
        try:
            yield running
        finally:
            running.kill(9)
            running.wait(60)

    # -- files -------------------------------------------------------------------------------------

    def read(self, path: str) -> bytes:
        """Return a file of the machine; raises VmError with its words if it cannot be read."""
        return self._emulator.agent.ask("read", path=path)

    def text(self, path: str) -> str:
        return self.read(path).decode()

    def write(self, path: str, data: str | bytes, *, mode: int = 0o644, user: str | None = None) -> None:
        """Write a file of the machine, its folders included, as root or for `user`."""
        raw = data.encode() if isinstance(data, str) else data
        self._emulator.agent.ask(
            "write", path=path, data=base64.b64encode(raw).decode(), mode=mode, user=user
        )

    def push(self, *items: Path | tuple[str, bytes], to: str = "/tmp/pushed") -> str:
        """Copy files, whole trees, or (name, bytes) into the folder `to`, owned by root; returns `to`."""
        self.sh(parcel.unpacking(parcel.pack(items, self._files.push), to))
        return to

    # -- snapshots ---------------------------------------------------------------------------------

    def save(self, name: str) -> None:
        """Keep the whole state, disk and memory, as `name`; nothing started may still run."""
        if busy := self._emulator.agent.unfinished():
            raise VmError(
                f"cannot save while commands run: {', '.join(busy)}", "wait() for them, or kill() them."
            )
        self._emulator.qmp.monitor(f"savevm {name}")

    def load(self, name: str) -> None:
        """Go back to `name`; the clock is put right afterwards, everything that was started is forgotten.

        By a new QEMU: in the old one the CPU's counter would not go back with the rest (cpu_get_ticks
        never decreases), and the machine would see its monotonic clock leap; watchdogs bark at that.
        """
        self._emulator.quit()
        self._config = self._plain
        self._emulator = self._launch(name)

    def _greet(self) -> None:
        self._emulator.agent.ping(BOOT_LIMIT)
        self._emulator.agent.ask("clock", unix=time.time())

    # -- power -------------------------------------------------------------------------------------

    def reboot(self) -> None:
        """Reboot in good order and return when the new system is up."""
        agent = self._emulator.agent
        before = self.text("/proc/sys/kernel/random/boot_id").strip()
        agent.boot_id = before
        self.start(["systemctl", "reboot"])
        agent.wait(lambda: agent.boot_id != before, BOOT_LIMIT, "no agent after the reboot", self._tail)
        agent.forget("the machine rebooted")
        self.settle()

    def power_cut(self, append: str | None = None) -> None:
        """Take the power away and give it back: what was not on the disk is lost. Returns when it is up.

        `append` is added to the kernel's command line from then on, until load().
        """
        # `quit` stops the CPUs where they are; a kill would lose what only QEMU knows of its disk file.
        self._emulator.quit()
        self._restart(append)

    def restart(self, append: str | None = None) -> None:
        """Switch off in good order and on again, `append` added to the kernel's command line until load()."""
        self.switch_off()
        self._restart(append)

    def switch_off(self) -> Path:
        """Switch off in good order; returns the disk, a qcow2 that is whole then."""
        self.start(["systemctl", "poweroff"])
        end = time.monotonic() + BOOT_LIMIT
        while self._emulator.alive:
            if time.monotonic() > end:
                raise VmError(f"it did not switch off in {BOOT_LIMIT:.0f} s\n{self._tail()}")
            time.sleep(0.05)
        self._emulator.kill()
        return self._files.disk

    def _restart(self, append: str | None) -> None:
        if append is not None:
            if self._files.kernel is None:
                raise VmError("this machine's command line is its boot loader's", "Change it there.")
            self._config = replace(self._plain, append=f"{self._plain.append} {append}".strip())
        self._emulator = self._launch(None)

    def settle(self) -> None:
        """Return when udev is idle and systemd has started everything; raises VmError if a unit failed."""
        self.run(["udevadm", "settle"], timeout=BOOT_LIMIT)
        state = self.run(["systemctl", "is-system-running", "--wait"], timeout=BOOT_LIMIT, check=False)
        if state.stdout.strip() != "running":
            failed = self.run(["systemctl", "--failed", "--no-legend", "--plain"], check=False).stdout
            raise VmError(f"the machine is {state.stdout.strip()}: {failed}\n{self._tail()}")

    def close(self) -> None:
        """Switch it off without ceremony."""
        self._emulator.kill()

    def release(self) -> None:
        """End QEMU so that its disk file is whole and can be copied."""
        self._emulator.quit()

    # -- looking in --------------------------------------------------------------------------------

    def console(self) -> str:
        """Return all that the serial console said since the machine was made."""
        return console.readable(self.log)

    def shell(self) -> None:
        """Give the caller's terminal a root shell in the machine, until `exit`, poweroff or Ctrl-]."""
        terminal.attach(self._emulator.shell, self._resize)

    @property
    def pid(self) -> int:
        """QEMU's pid on the host."""
        return self._emulator.pid

    @property
    def ssh_port(self) -> int:
        """The port of 127.0.0.1 that leads to its port 22, if it was made with Hardware.ssh."""
        said = self._emulator.qmp.execute("human-monitor-command", {"command-line": "info usernet"})
        forward = re.search(r"HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)", said)
        if forward is None:
            raise VmError(
                f"this machine has no network card: {said.strip()}", "Make it with Hardware(ssh=True)."
            )
        return int(forward[1])

    def _resize(self, rows: int, columns: int) -> None:
        self.run(["stty", "-F", "/dev/hvc0", "rows", str(rows), "columns", str(columns)], check=False)

    def _tail(self) -> str:
        return console.tail(self.log)

    def _launch(self, snapshot: str | None) -> Emulator:
        emulator = Emulator(self._config, self._files, self.log, snapshot)
        self._emulator = emulator
        try:
            if snapshot is None:
                self._progress("the machine's kernel starts")
                agent = emulator.agent
                agent.wait(lambda: bool(agent.boot_id), BOOT_LIMIT, "no agent", self._tail)
                self._progress("its systemd starts the last units")
                self.settle()
            else:
                self._greet()
        except BaseException:
            emulator.kill()
            raise
        return emulator

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def is_running(pid: int) -> bool:
    """Tell whether a process of the host is there."""
    return subprocess.run(["kill", "-0", str(pid)], check=False, capture_output=True).returncode == 0
