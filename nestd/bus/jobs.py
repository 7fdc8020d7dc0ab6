# SPDX-License-Identifier: LGPL-2.1-or-later
"""org.nestd1.Job: an object for the change that is under way, and for as long as it is."""

import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from nestd.bus import manager
from nestd.bus.dispatcher import Dispatcher
from nestd.bus.exported import Following, Handler
from nestd.nesting.changer import Changer, Progress

INTERFACE = "org.nestd1.Job"
PATH = f"{manager.PATH}/job"
# The last thing that is done has no step in the plan: it changes nothing.
READ_BACK = "read back what came of it"


class Job(Following[Progress]):
    """The object of a change: `started` is in microseconds since the epoch, `progress` where it is now."""

    interface = INTERFACE
    methods: Mapping[str, Handler] = MappingProxyType({})

    def __init__(self, path: str, started: int, progress: Progress) -> None:
        super().__init__(progress)
        self.path = path
        self._started = started

    def properties(self) -> dict[str, Any]:
        """Every property. Reading back counts as one more step."""
        operation, steps, current = self.state
        return {
            "Operation": operation,
            "Step": steps[current] if current < len(steps) else READ_BACK,
            "Progress": current / (len(steps) + 1),
            "StartTime": self._started,
        }


class Jobs:
    """Exports the changer's change while it is under way, and tells its end. Paths are not used again.

    The changer is what keeps it alive.
    """

    def __init__(self, dispatcher: Dispatcher, changer: Changer) -> None:
        self._dispatcher = dispatcher
        self._changer = changer
        self._count = 0
        self._job: Job | None = None
        changer.on_progress.append(self._moved)

    def _moved(self, progress: Progress | None) -> None:
        job = self._job
        if progress is None:
            if job is not None:
                self._end(job)
        elif job is None:
            self._count += 1
            self._job = Job(f"{PATH}/{self._count}", time.time_ns() // 1000, progress)
            self._dispatcher.export(self._job.path, self._job)
        elif changed := job.update(progress):
            self._dispatcher.changed(job.path, INTERFACE, changed)

    def _end(self, job: Job) -> None:
        failure = self._changer.failure
        self._job = None
        self._dispatcher.emit(job.path, INTERFACE, "Completed", not failure, failure)
        self._dispatcher.withdraw(job.path)
