# SPDX-License-Identifier: LGPL-2.1-or-later
"""udev's end is waited for by udevadm, whatever becomes of that; tests/vm has the real one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nestd.host import coldplug
from nestd.host.commands import Commands
from tests.support import loop


def udevadm(folder: Path, script: str) -> Commands:
    """A udevadm that notes its arguments, then does what `script` says."""
    program = folder / "udevadm"
    program.write_text(f'#!/bin/sh\nprintf \'["%s","%s","%s"]\' "$@" > {folder}/called\n{script}\n')
    program.chmod(0o755)
    return Commands(f"{folder}:/bin")


def test_it_is_asked_for_the_end_of_the_queue_or_for_kvm(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    loop.run(coldplug.over(udevadm(tmp_path, "exit 0"), 10.0))
    assert json.loads((tmp_path / "called").read_text()) == [
        "settle",
        "--timeout=10",
        "--exit-if-exists=/sys/devices/virtual/misc/kvm",
    ]
    assert capfd.readouterr().err == ""


def test_a_busy_udev_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    loop.run(coldplug.over(udevadm(tmp_path, "exit 1"), 10.0))
    assert "udev is still busy after 10 s" in capfd.readouterr().err


def test_a_udevadm_that_cannot_be_run_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    commands = udevadm(tmp_path, "")
    (tmp_path / "udevadm").write_text("#!/nonexistent/sh\n")
    loop.run(coldplug.over(commands, 10.0))
    assert "cannot be executed" in capfd.readouterr().err


def test_without_udev_there_is_nothing_to_wait_for(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    loop.run(coldplug.over(Commands(str(tmp_path)), 10.0))
    assert capfd.readouterr().err == ""
