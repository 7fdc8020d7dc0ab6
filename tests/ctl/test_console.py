# SPDX-License-Identifier: LGPL-2.1-or-later
"""The console's two directions, with a guest that is only a socket."""

from __future__ import annotations

import os
import pty
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from time import sleep

import pytest

from tests.ctl.running import LIMIT, TOP

ATTACH = """
import sys
from nestd.ctl.console import attach
sys.exit(7 if attach(int(sys.argv[1]), eval(sys.argv[2])) else 0)
"""
MUCH = bytes(range(256)) * 8192  # 2 MiB, more than any buffer on the way


@contextmanager
def attached(
    stdin: int, stdout: int = subprocess.PIPE, said: str = "b''"
) -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    """A process with the console on the given descriptors, and the guest's end of it."""
    theirs, ours = socket.socketpair()
    ours.settimeout(LIMIT)
    with ours:
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-c", ATTACH, str(theirs.fileno()), said],
                pass_fds=[theirs.fileno()],
                stdin=stdin,
                stdout=stdout,
                stderr=subprocess.PIPE,
                env=os.environ | {"PYTHONPATH": str(TOP)},
            )
        with process:
            try:
                yield process, ours
            finally:
                process.kill()


def test_without_input_it_prints_until_the_guest_is_gone() -> None:
    def print_and_go() -> None:
        guest.sendall(MUCH)
        guest.close()

    with attached(subprocess.DEVNULL) as (process, guest):
        sender = threading.Thread(target=print_and_go)
        sender.start()
        out, err = process.communicate(timeout=LIMIT)
        sender.join(LIMIT)
    assert (out == MUCH, err, process.returncode) == (True, b"", 0)


def test_much_input_reaches_a_guest_that_talks_meanwhile() -> None:
    heard = bytearray()

    def echo() -> None:
        while len(heard) < len(MUCH):
            piece = guest.recv(65536)
            heard.extend(piece)
            guest.sendall(piece)
        guest.close()

    with attached(subprocess.PIPE) as (process, guest):
        guest_side = threading.Thread(target=echo)
        guest_side.start()
        out, err = process.communicate(MUCH, timeout=LIMIT)
        guest_side.join(LIMIT)
    assert (heard == MUCH, out == MUCH, err, process.returncode) == (True, True, b"", 0)


def test_the_end_of_the_input_does_not_close_the_guest() -> None:
    """A half-closed socket would make QEMU drop the console."""
    with attached(subprocess.PIPE) as (process, guest):
        assert process.stdin is not None
        process.stdin.write(b"reboot\n")
        process.stdin.close()
        assert guest.recv(100) == b"reboot\n"
        guest.sendall(b"still here")
        assert process.stdout is not None
        assert process.stdout.read(10) == b"still here"
        guest.setblocking(False)
        with suppress(BlockingIOError):  # open, and silent
            assert guest.recv(100) != b""
        guest.close()
        assert process.wait(LIMIT) == 0


def is_lent(process: subprocess.Popen[bytes], guest: socket.socket) -> None:
    """Return when raw mode is on: only then is it shown what the guest says."""
    guest.sendall(b"x")
    assert process.stdout is not None
    assert process.stdout.read(1) == b"x"


def test_the_escape_key_works_while_the_guest_is_deaf() -> None:
    ours, theirs = pty.openpty()
    with closing(os.fdopen(ours, "wb", 0)) as keyboard, closing(os.fdopen(theirs, "wb", 0)):
        with attached(theirs) as (process, guest):
            is_lent(process, guest)
            for _ in range(1000):
                keyboard.write(b"y" * 1000)
            keyboard.write(b"\x1d")
            assert process.wait(LIMIT) == 7


def test_what_was_typed_before_the_escape_key_reaches_the_guest() -> None:
    """Even where the guest is slow: what is not read when its client leaves, QEMU drops."""
    ours, theirs = pty.openpty()
    with closing(os.fdopen(ours, "wb", 0)) as keyboard, closing(os.fdopen(theirs, "wb", 0)):
        with attached(theirs) as (process, guest):
            is_lent(process, guest)
            keyboard.write(b"poweroff\r\x1dnot for the guest")
            # Nobody has left before it is read.
            gone = select.poll()
            gone.register(guest, 0)
            assert guest.recv(4) == b"powe" and gone.poll(0) == []
            assert guest.recv(100) == b"roff\r"
            assert guest.recv(100) == b""
            assert process.wait(LIMIT) == 7


def test_output_that_does_not_wait() -> None:
    """As ssh leaves it; a full pipe is not the end of the console."""

    def print_and_go() -> None:
        guest.sendall(MUCH)
        guest.close()

    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with closing(os.fdopen(reading, "rb")) as shown:
        with attached(subprocess.DEVNULL, writing) as (process, guest):
            os.close(writing)
            sender = threading.Thread(target=print_and_go)
            sender.start()
            first = shown.read(1)
            sleep(0.2)  # it fills meanwhile
            assert first + shown.read() == MUCH
            sender.join(LIMIT)
            assert (process.wait(LIMIT), process.communicate()[1]) == (0, b"")


@pytest.mark.parametrize(("kept", "told"), [((1 << 20) - 1, False), (1 << 20, True)])
def test_a_log_that_is_full_tells_of_the_gap(kept: int, told: bool) -> None:
    ours, theirs = pty.openpty()
    with closing(os.fdopen(theirs, "wb", 0)), closing(os.fdopen(ours, "rb", 0)) as screen:
        with attached(subprocess.DEVNULL, theirs, f"b'y' * {kept}") as (process, guest):
            guest.sendall(b"now")
            guest.close()
            seen = b""
            while b"now" not in seen:
                seen += screen.read(65536)
            assert process.wait(LIMIT) == 0
    assert (b"keeps the first MiB" in seen) is told


def test_nobody_reads_the_output() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        with attached(subprocess.DEVNULL, writing) as (process, guest):
            guest.sendall(b"hello")
            assert b"BrokenPipeError" in process.communicate(timeout=LIMIT)[1]  # for nestctl's main to handle
    finally:
        os.close(writing)


def test_a_reader_that_leaves_is_noticed_while_the_guest_is_silent() -> None:
    with attached(subprocess.DEVNULL) as (process, guest):
        guest.sendall(b"hello")
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(5) == b"hello"
        process.stdout.close()
        assert process.wait(LIMIT) == 1
        assert b"BrokenPipeError" in process.stderr.read()


def test_a_signal_ends_it_where_no_terminal_is_to_be_restored() -> None:
    with attached(subprocess.DEVNULL) as (process, guest):
        guest.sendall(b"x")
        assert process.stdout is not None
        assert process.stdout.read(1) == b"x"
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT) == -signal.SIGTERM
