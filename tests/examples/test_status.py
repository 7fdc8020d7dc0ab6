# SPDX-License-Identifier: LGPL-2.1-or-later
"""examples/status.sh: what it tells of a machine, and of one without nestd."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.examples.conftest import EXAMPLES, Run
from tests.support.clients import NOBODY, Client, options
from tests.support.daemon import Daemon
from tests.support.privatebus import PrivateBus
from tests.support.tools import Tools
from tests.support.tree import Tree

pytestmark = pytest.mark.bus


def test_on_and_off_and_who_decides(run: Run, root: Client, tree: Tree) -> None:
    done = run("status.sh", uid=NOBODY)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "Guests get nesting now: on",
        "At the next boot:       on, says kernel default",
    ]
    tree.dropin("kvm.conf", "options kvm_amd nested=1\n")
    root.call("Disable", "a{sv}", [{}])
    done = run("status.sh", uid=NOBODY)
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "Guests get nesting now: off"
    assert lines[1].startswith("At the next boot:       off, says /etc/modprobe.d/zz-nestd.conf:")
    assert lines[2] == "Overridden:             /etc/modprobe.d/kvm.conf:1"


def test_what_waits(run: Run, root: Client, tree: Tree) -> None:
    tree.replace("/sys/module/kvm_amd/refcnt", "1\n")
    root.call("Disable", "a{sv}", [options(when_idle=True)])
    assert "Waits until KVM is idle:  nesting off\n" in run("status.sh").stdout


def test_where_it_cannot_be_had(run: Run, bus: PrivateBus, tree: Tree, tools: Tools) -> None:
    tree.amd(flags="fpu sse2 lm").gone("/sys/module/kvm_amd")
    with Daemon(bus, tree):
        done = run("status.sh")
    assert done.returncode == 2
    assert "In the way:             no-extension: " in done.stdout
    assert "To do:                  " in done.stdout


def test_without_nestd_and_without_a_bus(run: Run, bus: PrivateBus, tmp_path: Path) -> None:
    done = run("status.sh")
    assert (done.returncode, done.stdout) == (3, "")
    assert "nestd is not running and could not be started" in done.stderr
    bus.address = f"unix:path={tmp_path}/nothing"
    done = run("status.sh")
    assert (done.returncode, done.stdout) == (3, "")
    assert "There is no system bus" in done.stderr


def test_shellcheck_has_nothing_to_say() -> None:
    done = subprocess.run(
        ["shellcheck", EXAMPLES / "status.sh"], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "")
