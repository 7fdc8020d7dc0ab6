# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tells a person what goes on: one line a phase."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

Progress = Callable[[str], None]


def silent(_phase: str) -> None:
    """Say nothing."""


def to_stream(stream: TextIO | None = None) -> Progress:
    """Return a Progress that writes each phase with the seconds since this call to `stream` (stderr)."""
    out = stream if stream is not None else sys.stderr
    began = time.monotonic()

    def say(phase: str) -> None:
        print(f"  {time.monotonic() - began:6.1f} s  {phase}", file=out, flush=True)

    return say
