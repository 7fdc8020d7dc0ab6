# SPDX-License-Identifier: LGPL-2.1-or-later
"""A person at a terminal, in the machine: runs nestctl console there and tells what came of it.

    python3 console_user.py HOW

HOW: `escape` (type, leave), `kill` (the guest is killed meanwhile), `term` (nestctl gets SIGTERM), `busy` (a
second one while the first is attached, and a third when it has left). Prints a line of JSON.
"""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time

LIMIT = 120.0


class Terminal:
    """nestctl on a terminal of its own."""

    def __init__(self) -> None:
        self.ours, self.theirs = pty.openpty()
        self.before = termios.tcgetattr(self.theirs)
        self.seen = b""
        self.process = subprocess.Popen(
            ["nestctl", "console", "demo"],
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=self.theirs,
            start_new_session=True,
        )

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self.ours, keys)

    def expect(self, words: bytes) -> None:
        """Wait until it has shown this."""
        until = time.monotonic() + LIMIT
        while words not in self.seen:
            if not select.select([self.ours], [], [], max(0, until - time.monotonic()))[0]:
                raise TimeoutError(self.seen)
            self.seen += os.read(self.ours, 65536)

    def end(self) -> dict[str, object]:
        """Its exit status, whether the terminal is as it was, what it has shown."""
        until = time.monotonic() + LIMIT
        while self.process.poll() is None or select.select([self.ours], [], [], 0)[0]:
            if time.monotonic() > until:
                raise TimeoutError(self.seen)
            if select.select([self.ours], [], [], 0.1)[0]:
                self.seen += os.read(self.ours, 65536)
        same = termios.tcgetattr(self.theirs) == self.before
        return {"code": self.process.returncode, "same": same, "seen": self.seen.decode("utf-8", "replace")}


def attached() -> Terminal:
    """One in which the guest has answered."""
    terminal = Terminal()
    terminal.expect(b"leaves it")
    # Not before it is the guest's: what is typed earlier is the terminal's own to keep or to forget.
    until = time.monotonic() + LIMIT
    while termios.tcgetattr(terminal.theirs) == terminal.before:
        if time.monotonic() > until:
            raise AssertionError("the terminal was not lent")
        time.sleep(0.05)
    # What it answers is not what was typed; what it said to an earlier one would be.
    word = str(int(time.monotonic() * 100) % 1_000_000).encode()
    terminal.type(b"echo heard-$((" + word + b" + 1))\r")
    terminal.expect(b"heard-" + str(int(word) + 1).encode())
    return terminal


def main(how: str) -> None:
    first = attached()
    told = []
    if how == "escape":
        first.type(b"echo parting-$((6 * 7)) is what it said\r\x1d")
    elif how == "kill":
        subprocess.run(["nestctl", "kill", "demo"], check=True)
    elif how == "term":
        first.process.send_signal(signal.SIGTERM)
    else:
        told.append(Terminal().end())
        first.type(b"\x1d")
    told.append(first.end())
    if how in ("escape", "busy"):
        again = attached()
        if how == "escape":
            again.expect(b"parting-42")
        again.type(b"\x1d")
        told.append(again.end())
    print(json.dumps(told))


main(sys.argv[1])
