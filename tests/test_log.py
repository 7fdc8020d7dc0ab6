# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nestd import log


@pytest.fixture
def stderr(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "stderr", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


def written(descriptor: int) -> str:
    return os.pread(descriptor, 1 << 20, 0).decode()


def test_a_line_on_stderr(stderr: int) -> None:
    log.Journal("/nonexistent", stderr).write(4, "bad\nnews \x1b[1m\udcff", log.DENIED, caller=":1.5\n")
    assert written(stderr) == (
        f"<4>bad\\nnews \\x1b[1m\\udcff NESTD_CALLER=:1.5\\n MESSAGE_ID={log.DENIED}\n"
    )


def test_a_line_in_the_journal(tmp_path: Path, stderr: int) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.settimeout(10)
        journal.bind(str(tmp_path / "socket"))
        log.Journal(str(tmp_path / "socket"), stderr).write(6, "a\nb", log.CHANGED, driver="kvm_amd", pid=1)
        fields = journal.recv(4096).decode().splitlines()
    assert written(stderr) == ""
    assert fields == [
        "MESSAGE=a\\nb",
        "PRIORITY=6",
        "NESTD_DRIVER=kvm_amd",
        "NESTD_PID=1",
        f"MESSAGE_ID={log.CHANGED}",
        "SYSLOG_IDENTIFIER=nestd",
    ]


def test_a_journal_that_does_not_read_does_not_block(tmp_path: Path, stderr: int) -> None:
    journal = log.Journal(str(tmp_path / "socket"), stderr)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(tmp_path / "socket"))
        for number in range(5000):
            journal.write(6, f"line {number} " + "x" * 1000)
            if written(stderr):
                return
    raise AssertionError("5000 lines went into a socket that nobody reads")


def test_stderr_that_is_full_or_gone_is_no_error() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    log.Journal("/nonexistent", full).write(3, "x")
    os.close(full)
    log.Journal("/nonexistent", full).write(3, "x")


def test_too_much_is_cut(stderr: int) -> None:
    log.Journal("/nonexistent", stderr).write(3, "x" * 100_000)
    assert len(written(stderr)) == (16 << 10) + len("<3>\n")


def test_functions_and_priorities(capfd: pytest.CaptureFixture[str]) -> None:
    """Where this machine has a journal the lines go there; the module's functions must not raise anyhow."""
    log.info("i")
    log.warning("w", caller=1)
    log.error("e", message_id=log.CHANGE_FAILED)
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("x")
    lines = capfd.readouterr().err.splitlines()
    if Path("/run/systemd/journal/socket").exists():
        assert lines == []
    else:
        assert [line[:4] for line in lines] == ["<6>i", "<4>w", "<3>e", "<3>x"]
        assert "NESTD_TRACEBACK=Traceback" in lines[3] and "ValueError: why" in lines[3]


def test_message_ids_are_ids_and_differ() -> None:
    ids = [
        *(log.CHANGED, log.CHANGE_FAILED, log.ROLLBACK_FAILED, log.GUEST_STARTED),
        *(log.GUEST_EXITED, log.DENIED, log.HANDLER_FAILED),
    ]
    assert len(set(ids)) == 7
    assert all(len(one) == 32 and int(one, 16) for one in ids)


def test_logging_is_not_imported() -> None:
    script = "import sys, nestd.log; sys.exit('logging' in sys.modules or 'systemd' in sys.modules)"
    assert subprocess.run([sys.executable, "-S", "-c", script], timeout=60, check=False).returncode == 0


def test_limiter() -> None:
    now = 0.0
    said: list[str] = []
    limiter = log.Limiter(2, 30.0, lambda: now)
    assert [limiter.passes(said.append) for _ in range(5)] == [True, True, False, False, False]
    assert said == ["more than 2 lines like the last in 30 s: holding the rest back"]
    now = 29.9
    assert not limiter.passes(said.append)
    now = 30.0
    assert limiter.passes(said.append)
    assert said[1:] == ["4 lines like the next were held back"]
    now = 100.0
    assert limiter.passes(said.append)
    assert len(said) == 2
