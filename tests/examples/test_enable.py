# SPDX-License-Identifier: LGPL-2.1-or-later
"""examples/enable.py: the steps of the job as they come, what came of it, and what is said of errors."""

from __future__ import annotations

import pytest

from tests.examples.conftest import Run
from tests.support.clients import NOBODY, Client
from tests.support.tools import Tools
from tests.support.tree import Tree

pytestmark = pytest.mark.bus

ZZ = "/etc/modprobe.d/zz-nestd.conf"


@pytest.fixture(autouse=True)
def off(root: Client) -> None:
    root.call("Disable", "a{sv}", [{}])


def test_the_steps_and_what_came_of_it(run: Run, root: Client) -> None:
    done = run("enable.py")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"  0%  write {ZZ}: options kvm_amd nested=1",
        " 25%  unload kvm_amd",
        " 50%  load kvm_amd with nested=1",
        " 75%  read back what came of it",
        "Nesting is on now; at the next boot: on.",
    ]
    assert root.get("Nested") == "on"


def test_it_waits_as_long_as_it_takes(run: Run, tools: Tools) -> None:
    tools.fail("rmmod", "kvm_amd", hang=1.0)
    assert run("enable.py").returncode == 0


def test_in_use(run: Run, root: Client, tree: Tree) -> None:
    tree.replace("/sys/module/kvm_amd/refcnt", "1\n")
    done = run("enable.py")
    assert done.returncode == 1
    assert done.stderr.startswith("org.nestd1.Error.InUse: ")
    assert done.stderr.endswith("or use the option when-idle: then it waits.\n")
    assert root.get("Nested") == "off"


def test_refused(run: Run) -> None:
    done = run("enable.py", uid=NOBODY)
    assert done.returncode == 1
    assert done.stderr.startswith("org.freedesktop.DBus.Error.AccessDenied: ")
    assert done.stderr.endswith("Ask an administrator.\n")


def test_one_that_it_has_no_word_for(run: Run, tools: Tools) -> None:
    tools.fail("modprobe", "kvm_amd", code=1, words="no such luck")
    done = run("enable.py")
    assert done.returncode == 1
    assert done.stderr.startswith("org.nestd1.Error.ReloadFailed: ") and "no such luck" in done.stderr
    assert done.stderr.endswith("journalctl -u nestd\n")
