# SPDX-License-Identifier: LGPL-2.1-or-later
"""Diagnose: everything is looked at anew, once for all who ask meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from nestd import tasks
from nestd.host import bootloader
from nestd.host.holders import holders
from nestd.host.machine import Host
from nestd.host.others import others
from nestd.model import Check
from nestd.nesting import bootchecks, checks, circumstances, images
from nestd.nesting.observer import Observer
from nestd.text import cpuinfo

# What another part of nestd has to say, in the order of Diagnose.
More = Callable[[], Iterable[Check]]


class Diagnosis:
    """Runs the checks. Those of `more` come behind our own: next boot, change under way, drift ..."""

    def __init__(self, host: Host, observer: Observer, more: Iterable[More]) -> None:
        self._host = host
        self._observer = observer
        self._more = tuple(more)
        self._running: tasks.Task[tuple[Check, ...]] | None = None

    async def run(self) -> tuple[Check, ...]:
        """All rows. Who asks while it runs gets the same answer, so that many cost no more than one.

        Raises OSError where /proc or /sys fails. In the middle of a change it tells of the last reading.
        """
        if self._running is None:
            self._running = tasks.create_task(self._look())
        return await self._running

    async def _look(self) -> tuple[Check, ...]:
        try:
            found = await circumstances.gather(self._host)
            before = self._observer.reading
            image = await images.learn(self._host, before.configuration, before.driver)
            # Where the driver runs, gather does not ask what is not in the way.
            self._observer.learn(found)
            reading, root = self._observer.reading, self._host.root
            evidence = checks.Evidence(
                await tasks.to_thread(holders, root),
                others(root, self._host.kmod),
                circumstances.enforcement(self._host),
                cpuinfo.vmx_flags(root.read("/proc/cpuinfo") or ""),
                (root.read("/sys/module/kvm/parameters/hpage") or "").strip(),
                self._host.release,
            )
            own = checks.checks(reading, found, evidence)
            driver = reading.driver if reading.status.extension else None
            state = reading.status.driver_state
            template = root.read(bootloader.KERNEL_CMDLINE)
            at_boot = bootchecks.checks(reading.configuration, driver, state, image, template)
            return (*own, *at_boot, *(check for more in self._more for check in more()))
        finally:
            self._running = None
