# SPDX-License-Identifier: LGPL-2.1-or-later
"""nestctl as a real process, against the fake nestd on a private bus, on pipes and on a terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tests.support.privatebus import PrivateBus

TOP = Path(__file__).parents[2]
POLICY = '<policy context="default"><allow own="org.nestd1"/><allow send_destination="org.nestd1"/></policy>'
LIMIT = 60.0  # seconds; only a hang takes so long
NESTCTL = [sys.executable, "-m", "nestd.ctl"]


class Fake:
    """The fake nestd, and the bus it is on."""

    def __init__(self, bus: PrivateBus, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            k: v for k, v in bus.environment.items() if k not in ("NO_COLOR", "TERM", "FORCE_COLOR")
        }
        self.environment |= {"PYTHONPATH": str(TOP), "TZ": "UTC"}
        self.bus = bus
        self.service: subprocess.Popen[bytes]

    def fail(self, errors: Mapping[str, tuple[str, str] | None]) -> None:
        """Let members fail from now on, and forget the calls so far."""
        (self.folder / "errors.json").write_text(json.dumps(errors))
        (self.folder / "calls").write_text("")

    def calls(self) -> list[dict[str, Any]]:
        """What was asked since the last `fail`."""
        return [json.loads(line) for line in (self.folder / "calls").read_text().splitlines()]

    def run(self, *argv: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        """Run nestctl on pipes."""
        return subprocess.run(
            [*NESTCTL, *argv],
            check=False,
            env=self.environment | environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )


@contextmanager
def fake_nestd(folder: Path) -> Iterator[Fake]:
    """A private bus with the fake on it."""
    with PrivateBus(policy=POLICY) as bus:
        fake = Fake(bus, folder)
        fake.fail({})
        service = fake.service = subprocess.Popen(
            [sys.executable, "-m", "tests.ctl.fake_nestd", bus.address, str(folder)], env=fake.environment
        )
        try:
            deadline = time.monotonic() + LIMIT
            while "ready" not in (folder / "calls").read_text():
                assert service.poll() is None and time.monotonic() < deadline, "the fake does not start"
                time.sleep(0.01)
            yield fake
        finally:
            service.terminate()
            service.wait(LIMIT)


class Terminal:
    """nestctl on a pseudo-terminal, which is its standard input, output and error."""

    def __init__(
        self,
        bus: Fake | PrivateBus,
        *argv: str,
        user: int | None = None,
        environment: Mapping[str, str] = MappingProxyType({}),
        columns: int = 0,
    ) -> None:
        self._ours, self._theirs = pty.openpty()
        termios.tcsetwinsize(self._theirs, (24, columns))  # 0: it does not say
        self.before = self.attributes()
        self.seen = ""
        self.process = subprocess.Popen(
            [*NESTCTL, *argv],
            env=bus.environment | {"TERM": "xterm", "PYTHONPATH": str(TOP)} | dict(environment),
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            user=user,
            start_new_session=True,
        )

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(LIMIT)
        os.close(self._ours)
        os.close(self._theirs)

    def attributes(self) -> list[Any]:
        """How the terminal is set (termios(3))."""
        return termios.tcgetattr(self._theirs)

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._ours, keys)

    def expect(self, text: str) -> None:
        """Wait until the terminal has shown this."""
        deadline = time.monotonic() + LIMIT
        while text not in self.seen:
            assert select.select([self._ours], [], [], max(0, deadline - time.monotonic()))[0], self.seen
            self.seen += os.read(self._ours, 65536).decode()

    def resize(self, rows: int, columns: int) -> None:
        """Have the window another size, of which the process is told."""
        termios.tcsetwinsize(self._theirs, (rows, columns))
        self.process.send_signal(signal.SIGWINCH)

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for what must come."""
        deadline = time.monotonic() + LIMIT
        while not condition():
            assert time.monotonic() < deadline, self.seen
            time.sleep(0.01)

    def end(self) -> int:
        """Wait for nestctl's end; the rest of what it showed is then in `seen`."""
        deadline = time.monotonic() + LIMIT
        while self.process.poll() is None or select.select([self._ours], [], [], 0)[0]:
            assert time.monotonic() < deadline, self.seen
            if select.select([self._ours], [], [], 0.02)[0]:
                self.seen += os.read(self._ours, 65536).decode()
        return self.process.wait(LIMIT)
