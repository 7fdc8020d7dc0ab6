# SPDX-License-Identifier: LGPL-2.1-or-later
"""Verify: does nesting work here? A throw-away guest, L1, loads KVM and runs a guest of its own, L2.

Both levels are real: QEMU runs L1 as an ordinary user under this machine's KVM, and inside L1 the same
kernel, with its own driver, runs L2 straight on /dev/kvm.
"""

from __future__ import annotations

import os
import time
from typing import NamedTuple, Protocol

from nestd import log, tasks
from nestd.errors import CallFailed, GuestNotFound, Timeout
from nestd.guestmodel import GuestRecord, GuestSpec
from nestd.guests.probe import verdict
from nestd.guests.probe.image import Image
from nestd.guests.probe.verdict import Verdict
from nestd.guests.registry import Registry
from nestd.model import Extension

# Seconds between two looks at the console's log.
_PAUSE = 0.2
_MEMORY = 256 << 20
# No words of the kernel but the last ones: they would fall into the lines that are read. A panic keeps
# QEMU, and so the log, for a while.
_APPEND = "console=ttyS0 quiet loglevel=1 panic=30"


class Launches(Protocol):
    """What guests/launch.py gives."""

    async def launch(self, spec: GuestSpec, extension: Extension) -> GuestRecord:
        """Start a guest."""


class Request(NamedTuple):
    """What Verify was asked for: the account that QEMU runs as, the CPU as for Launch, seconds at most."""

    user: str
    cpu: str = "host"
    cpu_features: tuple[str, ...] = ()
    limit: float = 120.0


class Verified(NamedTuple):
    """What was seen. `cpu` is the argument of -cpu, `missing` the flags that QEMU did not grant.

    `booted` are the seconds until L1 said its first word (0.0: it said none), `seconds` all of it.
    """

    verdict: Verdict
    cpu: str
    missing: tuple[str, ...]
    booted: float
    seconds: float


class Verifier:
    """Starts the guest, listens to it, and leaves nothing of it."""

    def __init__(self, launcher: Launches, registry: Registry) -> None:
        self._launcher = launcher
        self._registry = registry
        self._removing: set[tasks.Task[None]] = set()

    async def verify(self, image: Image, request: Request, extension: Extension) -> Verified:
        """Boot L1 and say what it saw; not having nesting is an answer, not an error.

        What Launcher.launch raises: InvalidArgs, LaunchFailed (and NotSupported is the caller's: no driver).
        """
        began = time.monotonic()
        name = f"verify-{os.urandom(4).hex()}"
        spec = GuestSpec(
            name,
            request.user,
            request.cpu,
            request.cpu_features,
            _MEMORY,
            kernel=image.kernel,
            initrd=image.initrd,
            append=_APPEND,
            require_nesting=False,
        )
        try:
            record = await self._launcher.launch(spec, extension)
        finally:
            if image.lent:
                os.unlink(image.kernel)  # QEMU has read it, or never will
        try:
            text, end, booted = await self._listen(name, began, began + request.limit)
        finally:
            task = tasks.create_task(self._remove(name))
            self._removing.add(task)
            task.add_done_callback(self._removing.discard)
            await task
        seen = verdict.of(text, end, extension, record.cpu, request.limit)
        return Verified(seen, record.cpu, record.missing_flags, booted, time.monotonic() - began)

    async def _listen(self, name: str, began: float, until: float) -> tuple[str, verdict.End, float]:
        """What the guest said, how that came to its end, and the seconds until its first word."""
        text, booted = "", 0.0
        while True:
            try:
                text = self._registry.console_log(name).decode("utf-8", "replace")
            except GuestNotFound:
                return text, verdict.End.GONE, booted
            now = time.monotonic()
            if text and not booted:
                booted = now - began
            if verdict.complete(text):
                return text, verdict.End.TOLD, booted
            if verdict.panic(text):
                return text, verdict.End.PANIC, booted
            if now > until:
                return text, verdict.End.LATE, booted
            await tasks.sleep(_PAUSE)

    async def _remove(self, name: str) -> None:
        try:
            # QEMU is told to go at once: nobody in this guest obeys the power button.
            await self._registry.stop(name, 0.0)
        except GuestNotFound:
            pass  # it ended by itself
        except (CallFailed, Timeout) as error:
            log.warning(f"The probe guest {name} could not be removed: {error}")
