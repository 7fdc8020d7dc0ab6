# SPDX-License-Identifier: LGPL-2.1-or-later
"""nestctl -M and -H: a container with a systemd and a nestd of its own, and another host over ssh."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm import extras, image, package
from tests.vm.boot import boot
from tests.vm.hardware import Hardware
from tests.vm.machine import Machine
from tests.vm.progress import Progress
from tests.vm.ssh import Ssh
from tests.vm.test_spine import PARAMETER

pytestmark = pytest.mark.nightly

# The machine itself once more: what the container writes is thrown away.
START = """
mkdir -p /run/inner
mount --bind / /run/inner
systemd-run --quiet --unit=inner --collect systemd-nspawn --quiet --machine=inner --directory=/run/inner \\
    --volatile=overlay --boot --kill-signal=SIGRTMIN+3
for i in $(seq 120); do
    if systemctl -M inner --quiet is-active nestd.service 2>/dev/null; then exit; fi
    sleep 1
done
journalctl --unit=inner.service --no-pager --lines=40 >&2
exit 1
"""


def status(machine: Machine, *where: str) -> dict[str, object]:
    """What `nestctl status` says there."""
    return dict(json.loads(machine.out("nestctl", *where, "--json", "status")))


def test_a_container_of_this_machine(machine: Machine) -> None:
    machine.sh(START, timeout=300)
    here, there = status(machine), status(machine, "-M", "inner")
    assert (here["virtualization"], there["virtualization"]) == ("qemu", "systemd-nspawn")

    # Its root is not this machine's: there nothing can be reloaded, and here nothing changes.
    refused = machine.run(["nestctl", "-M", "inner", "disable"], check=False)
    assert refused.code != 0 and refused.stderr.startswith("nestctl: inner: "), refused
    assert status(machine)["nested"] == here["nested"]

    nobody = machine.run(["nestctl", "-M", "nobody-home", "status"], check=False)
    assert nobody.code == 1 and "the machine nobody-home" in nobody.stderr, nobody
    stranger = machine.run(["nestctl", "-M", "inner", "status"], user="alice", check=False)
    assert stranger.code == 1 and "only root" in stranger.stderr, stranger


@pytest.fixture
def server(deb: Path, progress: Progress, tmp_path: Path) -> Iterator[tuple[Machine, Ssh, int]]:
    """A machine with nestd that ssh reaches, how, and at which port of 127.0.0.1."""
    built = image.ensure(progress)
    debs = extras.fetch(built, ("openssh-server",), progress)
    ssh = Ssh(tmp_path)
    # Cold: what would be kept for this hardware would push others' snapshots out of the cache.
    with boot(progress, Hardware(ssh=True), cold=True, built=built) as machine:
        port = ssh.add("server", machine)
        extras.install(machine, debs)
        package.install(machine, deb)
        yield machine, ssh, port


def test_another_host_over_ssh(server: tuple[Machine, Ssh, int]) -> None:
    machine, ssh, port = server

    def nestctl(*arguments: str, at: int = port) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "nestd.ctl", "-H", f"root@127.0.0.1:{at}", *arguments],
            env={"PATH": ssh.on_path(), "LC_ALL": "C.UTF-8"},
            cwd=Path(__file__).parents[2],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    there = nestctl("--json", "status")
    assert there.returncode == 0 and json.loads(there.stdout) == status(machine), there
    done = nestctl("disable")
    assert done.returncode == 0 and "Nesting is off now; at the next boot: off." in done.stdout, done
    assert machine.out("cat", PARAMETER) == "0"
    # A descriptor does not come through ssh: the console is refused, and it is said where to go.
    launched = nestctl("launch", "demo", "--memory", "16M", "--allow-no-nesting")
    assert launched.returncode == 0, launched
    console = nestctl("console", "demo")
    assert console.returncode == 2 and "nestctl console demo" in console.stderr, console
    assert nestctl("kill", "demo").returncode == 0
    # Nobody listens there; and a host whose key is not known is not talked to.
    nobody = nestctl("status", at=1)
    assert nobody.returncode == 1 and "ssh does not reach root@127.0.0.1" in nobody.stderr, nobody
    (Path(ssh.on_path().partition(":")[0]).parent / "known_hosts").write_text("")
    stranger = nestctl("status")
    assert stranger.returncode == 1 and "Host key verification failed" in stranger.stderr, stranger
