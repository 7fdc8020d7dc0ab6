# SPDX-License-Identifier: LGPL-2.1-or-later
"""Verify: does nesting work here? A throw-away guest, L1, loads KVM and runs a guest of its own, L2.

Both levels are real: QEMU runs L1 as an ordinary user under this machine's KVM, and inside L1 the same
kernel, with its own driver, runs L2 straight on /dev/kvm.
"""

from __future__ import annotations

import os
import time
from typing import NamedTuple, Protocol

from nestd import tasks
from nestd.errors import Failed, VerifyFailed
from nestd.guestmodel import GuestSpec
from nestd.guests import consolelog, places
from nestd.guests.launch import Started
from nestd.guests.probe import verdict
from nestd.guests.probe.image import Image
from nestd.guests.probe.verdict import Verdict
from nestd.host.root import Root
from nestd.model import Extension, Nesting

# Seconds between two looks at the console's log.
_PAUSE = 0.2
# Seconds more than it was given, after which systemd ends the guest that nestd did not: it was killed, too.
_LEFT_ALONE = 120
_MEMORY = 256 << 20
# No words of the kernel but the last ones: they would fall into the lines that are read. After a panic it
# stands still, so that the log can be read, until nestd ends it.
_APPEND = "console=ttyS0 quiet loglevel=1 panic=0"


class Starts(Protocol):
    """What guests/launch.py gives."""

    async def start(self, spec: GuestSpec, extension: Extension) -> Started:
        """Start a guest that is in no registry."""

    async def end(self, started: Started) -> None:
        """Leave nothing of it."""


class Request(NamedTuple):
    """What Verify was asked for: the account that QEMU runs as, the CPU as for Launch, seconds at most."""

    user: str
    cpu: str = "host"
    cpu_features: tuple[str, ...] = ()
    limit: float = 120.0


class Verified(NamedTuple):
    """What was seen. `cpu` is the argument of -cpu, `missing` what it asks for and QEMU did not grant.

    `booted` are the seconds until L1 said its first word (0.0: it said none), `seconds` all of it.
    """

    verdict: Verdict
    cpu: str
    missing: tuple[str, ...]
    booted: float
    seconds: float


class Verifier:
    """Starts the guest, listens to it, and leaves nothing of it.

    `end_limit`: seconds within which systemd has told of the end of a process that is gone.
    """

    def __init__(self, root: Root, launcher: Starts, *, end_limit: float = 10.0) -> None:
        self._root = root
        self._launcher = launcher
        self._end_limit = end_limit

    async def verify(self, image: Image, request: Request, extension: Extension, nested: Nesting) -> Verified:
        """Boot L1 and say what it saw; not having nesting is an answer, not an error.

        `nested` is what the driver is told, by which a missing extension is explained.

        What Launcher.start raises (InvalidArgs, LaunchFailed), and VerifyFailed: it cannot be listened to.
        """
        began = time.monotonic()
        spec = GuestSpec(
            f"{places.OWN}verify-{os.urandom(4).hex()}",
            request.user,
            request.cpu,
            request.cpu_features,
            _MEMORY,
            kernel=image.kernel,
            initrd=image.initrd,
            append=_APPEND,
            require_nesting=False,
            lifetime=int(request.limit) + _LEFT_ALONE,
        )
        try:
            started = await self._launcher.start(spec, extension)
        finally:
            if image.lent:
                os.unlink(image.kernel)  # QEMU has read it, or never will
        try:
            text, end, booted = await self._listen(started, began, began + request.limit)
        finally:
            await self._launcher.end(started)
        record = started.record
        seen = verdict.of(text, end, verdict.Asked(extension, record.cpu, request.limit, nested))
        return Verified(seen, record.cpu, started.verdict.dropped, booted, time.monotonic() - began)

    async def _listen(self, started: Started, began: float, until: float) -> tuple[str, verdict.End, float]:
        """What the guest said, how that came to its end, and the seconds until its first word."""
        text, booted = "", 0.0
        while True:
            gone = started.watch.ended.done()
            try:
                text = consolelog.read(self._root, started.record).decode("utf-8", "replace")
            except Failed as error:
                # It goes with QEMU, whose end systemd tells a moment later.
                await tasks.wait([started.watch.ended], self._end_limit)
                if not started.watch.ended.done():
                    raise VerifyFailed(f"The probe guest runs, but cannot be listened to: {error}") from error
                gone = True
            now = time.monotonic()
            if text and not booted:
                booted = now - began
            if verdict.complete(text):
                return text, verdict.End.TOLD, booted
            if verdict.panic(text):
                return text, verdict.End.PANIC, booted
            if gone:
                return text, verdict.End.GONE, booted
            if now > until:
                return text, verdict.End.LATE, booted
            await tasks.sleep(_PAUSE)
