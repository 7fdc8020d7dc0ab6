# SPDX-License-Identifier: LGPL-2.1-or-later
"""autopkgtest's smoke test passes where nestd works, and nowhere else: the real daemon, the real polkit."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.conftest import tree  # the same machine
from tests.packaging import house
from tests.support.daemon import POLICY, Daemon
from tests.support.polkitd import Polkitd
from tests.support.privatebus import PrivateBus
from tests.support.tools import Tools
from tests.support.tree import Tree

__all__ = ["tree"]

pytestmark = pytest.mark.bus

TESTS = house.TREE / "packaging/debian/tests"
# What is installed, by its path; the machine's modprobe.d is the tree's, and polkit knows our actions.
_IN_A_NAMESPACE = """
mount --bind "$1/modprobe.d" /etc/modprobe.d
mount --bind "$1/actions" /usr/share/polkit-1/actions
exec sh "$2"
"""
_NESTCTL = '#!/bin/sh\nPYTHONPATH={} exec /usr/bin/python3 -m nestd.ctl "$@"\n'
# No systemd runs here: the unit is what it is said to be.
_SYSTEMCTL = '#!/bin/sh\n[ "$1" != is-failed ]\n'


@pytest.fixture
def installed(tree: Tree) -> Iterator[Path]:
    """Programs, module and data where nobody can reach them, too."""
    with tempfile.TemporaryDirectory(prefix="nestd-smoke-") as name:
        top = Path(name)
        top.chmod(0o755)
        shutil.copytree(house.TREE / "nestd", top / "lib/nestd")
        (top / "bin").mkdir()
        for program, text in {"nestctl": _NESTCTL.format(top / "lib"), "systemctl": _SYSTEMCTL}.items():
            (top / "bin" / program).write_text(text)
            (top / "bin" / program).chmod(0o755)
        (top / "actions").mkdir()
        shutil.copy(house.TREE / "data/org.nestd1.policy", top / "actions")
        (top / "modprobe.d").symlink_to(tree.path("/etc/modprobe.d"))
        yield top


def smoke(bus: PrivateBus, installed: Path) -> subprocess.CompletedProcess[str]:
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", _IN_A_NAMESPACE, "sh"]
    environment = {**bus.environment, "PATH": f"{installed}/bin:{os.environ['PATH']}"}
    return subprocess.run(
        [*argv, installed, TESTS / "smoke"],
        env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


@pytest.fixture
def bus() -> Iterator[PrivateBus]:
    with PrivateBus(policies=[POLICY]) as bus:
        yield bus


def test_it_passes_where_nestd_works(bus: PrivateBus, tree: Tree, installed: Path) -> None:
    Tools(tree)
    with Polkitd(bus), Daemon(bus, tree):
        done = smoke(bus, installed)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("==") == 4


def test_it_passes_where_the_cpu_has_no_virtualization(
    bus: PrivateBus, tmp_path: Path, installed: Path
) -> None:
    bare = Tree(tmp_path / "bare").amd("fpu sse2").write("/etc/machine-id", "0" * 32 + "\n")
    Tools(bare)
    with Polkitd(bus), Daemon(bus, bare):
        done = smoke(bus, installed)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_fails_where_everybody_may_change(bus: PrivateBus, tree: Tree, installed: Path) -> None:
    Tools(tree)
    rule = "polkit.addRule(function() { return polkit.Result.YES; });"
    with Polkitd(bus, rule), Daemon(bus, tree):
        done = smoke(bus, installed)
    assert done.returncode == 1
    assert "nobody was not refused" in done.stderr


def test_it_fails_where_nothing_runs(bus: PrivateBus, installed: Path) -> None:
    assert smoke(bus, installed).returncode != 0


def test_control_names_the_test() -> None:
    fields = dict(line.split(": ", 1) for line in (TESTS / "control").read_text().splitlines())
    assert fields["Tests"].split() == [x.name for x in TESTS.iterdir() if x.name != "control"]
    # It changes the machine's modprobe.d and needs systemd.
    assert {"needs-root", "isolation-machine"} <= set(fields["Restrictions"].split(", "))
    assert "@" in fields["Depends"].split(", ")
    assert os.access(TESTS / "smoke", os.X_OK)
