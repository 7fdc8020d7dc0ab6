# SPDX-License-Identifier: LGPL-2.1-or-later
"""nestctl -M: a container with a systemd and a nestd of its own, which systemd-machined knows."""

from __future__ import annotations

import json

import pytest

from tests.vm.machine import Machine

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
