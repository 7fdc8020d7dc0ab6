# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs in a machine that has no agent: a list of commands, one after the other, told on a serial line.

The list is errand.json beside this file. Each command's end is a line of JSON on the line: code, said,
seconds (the machine's own); the last line is {"end": true}.
"""

from __future__ import annotations

import json
import os
import subprocess
import termios
import time
import tty
from pathlib import Path

_LINE = "/dev/ttyS1"
_LIMIT = 600.0


def main() -> None:
    line = os.open(_LINE, os.O_RDWR | os.O_NOCTTY)
    tty.setraw(line)
    settings = termios.tcgetattr(line)
    settings[4] = settings[5] = termios.B115200
    termios.tcsetattr(line, termios.TCSANOW, settings)
    for command in json.loads(Path(__file__).with_name("errand.json").read_text()):
        began = time.monotonic()
        try:
            done = subprocess.run(
                ["bash", "-c", command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=_LIMIT,
                check=False,
            )
            code, said = done.returncode, done.stdout
        except subprocess.TimeoutExpired as late:
            code, said = -1, (late.stdout or b"") + b"\n(not done in time)"
        text = said.decode(errors="replace")
        _tell(line, {"code": code, "said": text, "seconds": round(time.monotonic() - began, 2)})
    _tell(line, {"end": True})
    os.close(line)


def _tell(line: int, answer: dict[str, object]) -> None:
    rest = json.dumps(answer).encode() + b"\n"
    while rest:
        rest = rest[os.write(line, rest) :]


if __name__ == "__main__":
    main()
