# SPDX-License-Identifier: LGPL-2.1-or-later
"""A process whose calls that change a file system fail, or kill it, at will (tests/support/faults.c)."""

from __future__ import annotations

import mmap
import struct
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

KILL_BEFORE, KILL_AFTER, HANG = -1, -2, -3
_CONTROL = struct.Struct("=4i")
_SOURCE = Path(__file__).with_name("faults.c")


def build(folder: Path) -> Path:
    """The library, built into `folder`."""
    library = folder / "faults.so"
    argv = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o"]
    subprocess.run([*argv, str(library), str(_SOURCE), "-ldl"], check=True, timeout=60)
    return library


def control(call: int, what: int, *, lasting: bool = False) -> bytes:
    """What the file has in it that the library is told of: see Faults.arm."""
    return _CONTROL.pack(call, what, lasting, 0)


class Faults:
    """Faults for one process at a time, to be started with `environment`."""

    def __init__(self, library: Path, folder: Path) -> None:
        path = folder / "faults"
        path.write_bytes(control(-1, 0))
        with path.open("r+b") as file:
            self._control = mmap.mmap(file.fileno(), _CONTROL.size)
        self.environment = {
            "LD_PRELOAD": str(library),
            "NESTD_FAULTS": str(path),
            # What is imported late would be written too.
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def arm(self, call: int, what: int, *, lasting: bool = False) -> None:
        """From now on count: at the call of that number, from 0, `what` happens: an errno, or a kill."""
        self._control[:] = control(call, what, lasting=lasting)

    def disarm(self) -> int:
        """Let all go well again; how many calls there were."""
        calls: int = _CONTROL.unpack(self._control[:])[3]
        self._control[:] = control(-1, 0)
        return calls

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._control.close()
