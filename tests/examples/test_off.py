# SPDX-License-Identifier: LGPL-2.1-or-later
"""examples/off.c, compiled without a warning: what it does, and its exit codes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.examples.conftest import EXAMPLES, LIMIT, Run
from tests.support.clients import NOBODY, Client
from tests.support.tools import Tools
from tests.support.tree import Tree

pytestmark = pytest.mark.bus


def flags(package: str) -> list[str]:
    done = subprocess.run(
        ["pkg-config", "--cflags", "--libs", package],
        capture_output=True,
        text=True,
        check=True,
        timeout=LIMIT,
    )
    return done.stdout.split()


def compiled(source: Path, program: Path, *more: str | Path) -> Path:
    strict = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O2"]
    done = subprocess.run(
        ["cc", *strict, source, "-o", program, *more],
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return program


@pytest.fixture(scope="module")
def off(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("off")
    for each in (folder, *folder.parents[:2]):
        each.chmod(0o755)
    return compiled(EXAMPLES / "off.c", folder / "off", *flags("libsystemd"))


def test_it_turns_it_off(run: Run, off: Path, root: Client) -> None:
    for _ in range(2):
        done = run(off)
        assert (done.returncode, done.stdout, done.stderr) == (0, "Nesting is off.\n", "")
    assert (root.get("Nested"), root.get("NestedAtBoot")) == ("off", "on")


def test_in_use_it_says_by_whom(run: Run, off: Path, root: Client, tree: Tree) -> None:
    tree.replace("/sys/module/kvm_amd/refcnt", "1\n")
    tree.process(4711, "qemu-system-x86", "anon_inode:kvm-vm", cgroup="0::/machine.slice/a.service\n")
    done = run(off)
    assert done.returncode == 5
    assert done.stdout == "    4711  qemu-system-x86  a.service\n"
    assert "4711" in done.stderr
    assert root.get("Nested") == "on"


def test_refused(run: Run, off: Path, root: Client) -> None:
    done = run(off, uid=NOBODY)
    assert (done.returncode, done.stdout) == (3, "")
    assert len(done.stderr) > 20
    assert root.get("Nested") == "on"


def test_what_fails(run: Run, off: Path, root: Client, tools: Tools) -> None:
    tools.fail("modprobe", "kvm_amd", code=1, words="no such luck")
    done = run(off)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no such luck" in done.stderr


def test_without_nestd(run: Run, off: Path) -> None:
    done = run(off)
    assert done.returncode == 1
    assert "systemctl status nestd" in done.stderr
