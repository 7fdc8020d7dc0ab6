# SPDX-License-Identifier: LGPL-2.1-or-later
"""What nestd says is wrong, on a machine with which that was really done."""

from __future__ import annotations

import json
from typing import Any

from tests.vm.machine import Machine


def diagnose(machine: Machine, user: str = "root") -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit status of `nestctl diagnose`, and its rows by their ids."""
    done = machine.run(["nestctl", "diagnose", "--json"], user=user, check=False)
    return done.code, {row["id"]: row for row in json.loads(done.stdout)}


def test_a_machine_without_faults(machine: Machine) -> None:
    code, rows = diagnose(machine, "alice")
    assert [row for row in rows.values() if row["verdict"] == "fail"] == []
    assert code == 0
    assert {"extension", "firmware", "driver", "kvm-device", "running", "holders", "parameter-npt"} <= set(
        rows
    )
    assert "offers svm" in rows["running"]["message"]
    assert "QEMU" in rows["hypervisor"]["message"]


def test_modules_are_locked(machine: Machine) -> None:
    machine.sh("nestctl disable --runtime; sysctl -w kernel.modules_disabled=1")
    code, rows = diagnose(machine)
    assert (code, rows["module-loading"]["verdict"]) == (1, "fail")
    assert "scope boot" in rows["module-loading"]["remedy"]
    assert machine.run(["nestctl", "enable", "--runtime"], check=False).code == 4


def test_install_false_keeps_the_driver_away(machine: Machine) -> None:
    machine.sh("rmmod kvm_amd; printf '# no\\ninstall kvm-amd /bin/false\\n' > /etc/modprobe.d/no.conf")
    code, rows = diagnose(machine)
    assert (code, rows["driver"]["verdict"]) == (1, "fail")
    assert "/etc/modprobe.d/no.conf:2 says install kvm_amd /bin/false" in rows["driver"]["message"]
    assert machine.run(["modprobe", "kvm_amd"], check=False).code != 0
    refused = machine.run(["nestctl", "enable", "--runtime"], check=False)
    assert (refused.code, "no.conf:2" in refused.stderr) == (4, True)
    machine.sh("rm /etc/modprobe.d/no.conf; nestctl enable --runtime")
    assert diagnose(machine)[0] == 0


def test_dev_kvm_is_gone_and_made_again(machine: Machine) -> None:
    machine.sh("rm /dev/kvm")
    code, rows = diagnose(machine)
    assert (code, rows["kvm-device"]["verdict"]) == (1, "fail")
    machine.sh("mknod -m 660 /dev/kvm c 10 232 && chgrp kvm /dev/kvm")  # what the remedy says
    assert "mknod -m 660 /dev/kvm c 10 232" in rows["kvm-device"]["remedy"]
    assert diagnose(machine)[1]["kvm-device"]["verdict"] == "pass"


def test_the_real_kernels_log_is_found_in_the_sandbox(machine: Machine) -> None:
    """What the kernel said of the firmware (here somebody in its place) is found without /dev/kmsg."""
    machine.sh(
        "rmmod kvm_amd; echo 'kvm_amd: SVM disabled (by BIOS) in MSR_VM_CR on CPU 0' > /dev/kmsg; sync"
    )
    machine.sh("journalctl --sync")
    rows = diagnose(machine)[1]
    assert (rows["firmware"]["verdict"], "SVM disabled (by BIOS)" in rows["firmware"]["message"]) == (
        "fail",
        True,
    )


def test_who_holds_it(machine: Machine) -> None:
    unit = r"machine-qemu\x2d1\x2dweb.scope"
    hold = ["bash", "-c", "exec 3<>/dev/kvm; echo held; read"]
    with machine.background(
        ["systemd-run", "--quiet", "--scope", "--slice=machine.slice", f"--unit={unit}", *hold]
    ) as holder:
        holder.wait_for("held", 20)
        rows = json.loads(machine.run(["nestctl", "holders", "--json"], user="alice").stdout)
        assert [(row["command"], row["unit"], row["machine"]) for row in rows] == [("bash", unit, "web")]
        assert "machine web" in diagnose(machine)[1]["holders"]["message"]
        refused = machine.run(["nestctl", "disable", "--runtime"], check=False)
        assert refused.code == 5
