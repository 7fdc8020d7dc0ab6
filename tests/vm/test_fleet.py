# SPDX-License-Identifier: LGPL-2.1-or-later
"""[Export] of nestd.conf in the real sandbox: both files where Debian and Kubernetes have their folders."""

from __future__ import annotations

from pathlib import Path

from tests.vm.machine import Machine
from tests.vm.test_pending import wait_until
from tests.vm.test_service import UNIT

PROM = "/var/lib/prometheus/node-exporter/nestd.prom"
FEATURES = "/etc/kubernetes/node-feature-discovery/features.d/nestd"
LABEL = "feature.node.kubernetes.io/nestd-nested"


def told(machine: Machine, number: int, word: str) -> None:
    """Wait until both say so, for everybody to read."""
    wait_until(machine, f"$(grep -cx 'nestd_nested {number}' {PROM}) == 1")
    wait_until(machine, f"$(grep -cx '{LABEL}={word}' {FEATURES}) == 1")
    machine.run(["cat", PROM, FEATURES], user="nobody")


def test_the_unit_lets_it_write_to_both_folders(machine: Machine) -> None:
    """The first folder belongs to somebody else, as with Debian's prometheus-node-exporter."""
    folders = [str(Path(path).parent) for path in (PROM, FEATURES)]
    machine.run(["mkdir", "-p", *folders])
    machine.sh(f"chown nobody: {folders[0]}; systemctl restart {UNIT}")
    machine.write(
        "/etc/nestd/nestd.conf", f"[Export]\nPrometheusTextfile={PROM}\nNodeFeatureFile={FEATURES}\n"
    )
    machine.run(["systemctl", "reload", UNIT])
    told(machine, 1, "on")
    machine.run(["nestctl", "disable"])
    told(machine, 0, "off")
    machine.run(["systemctl", "stop", UNIT])
    assert machine.out("ls", "-A", *folders).split() == [f"{folders[1]}:", f"{folders[0]}:"]
