# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a guest's vCPU really got, told of real KVM and QEMU: granted, withheld, taken away."""

from __future__ import annotations

import json

from nestd.text import cpuid, cpuinfo
from tests.vm.machine import Machine
from tests.vm.test_guests import IDLE, show

# As bare as a named model can be. Nothing runs in these guests but their firmware.
QEMU64 = f"--cpu qemu64 {IDLE}"


def test_what_this_machine_has_and_a_guest_did_not_get_is_told(machine: Machine) -> None:
    """`host` is compared with this machine as every model is: QEMU drops nothing of it, and gives it less."""
    host = cpuid.withheld(cpuinfo.flags(machine.sh("cat /proc/cpuinfo").stdout), ())
    assert {"svm", "npt", "monitor", "sse4.1"} <= host
    machine.sh(f"nestctl launch demo {IDLE}", timeout=240)
    told = show(machine, "demo")
    assert told["nesting"] is True
    # KVM gives no guest MONITOR (arch/x86/kvm/cpuid.c); what it does give is not called missing.
    assert "monitor" in told["missing-flags"] and set(told["missing-flags"]) < host
    assert not {"svm", "npt", "fpu", "sse4.1"} & set(told["missing-flags"])
    shown = machine.out("nestctl", "show", "demo")
    assert "Nesting: granted: its virtual CPU has svm" in shown
    assert f"Missing flags: {len(told['missing-flags'])} CPU flag" in shown and "monitor" in shown
    machine.sh("nestctl kill demo")

    said = machine.sh(f"nestctl launch demo {QEMU64}", timeout=240).stdout
    less = show(machine, "demo")
    assert less["nesting"] is True and {"npt", "sse4.1", "avx2"} <= set(less["missing-flags"])
    assert not {"svm", "pni", "nx"} & set(less["missing-flags"])
    assert (
        f"svm: granted; {len(less['missing-flags'])} CPU flags did not reach it (`nestctl show demo`)" in said
    )
    # The next nestd asks the vCPU that runs meanwhile, and hears the same.
    machine.sh("systemctl stop nestd; rm /run/nestd/registry/demo.json; systemctl start nestd")
    assert show(machine, "demo") == less
    machine.sh("nestctl kill demo")


def test_what_kvm_withholds_is_named(machine: Machine) -> None:
    """With nesting off: of a model that asks for svm, and of `host`, which asks for what there is."""
    machine.sh("nestctl disable --runtime")
    for cpu in ("host", "qemu64"):
        machine.sh(f"nestctl launch demo --cpu {cpu} --allow-no-nesting {IDLE}", timeout=240)
        told = show(machine, "demo")
        assert told["nesting"] is False and {"svm", "npt"} <= set(told["missing-flags"])
        shown = machine.out("nestctl", "show", "demo")
        assert "Nesting: not granted: its virtual CPU lacks svm" in shown
        assert "(svm: see `nestctl diagnose`)" in shown
        machine.sh("nestctl kill demo")
    found = machine.run(["nestctl", "cpu", "--json"], check=False)
    assert found.code == 4
    assert json.loads(found.stdout)["missing"] == [] and json.loads(found.stdout)["nesting"] is False
    found = machine.run(["nestctl", "cpu", "--cpu", "qemu64", "--json"], check=False)
    assert found.code == 4 and "svm" in json.loads(found.stdout)["missing"]
    assert "QEMU started it without the extension." in machine.run(["nestctl", "cpu"], check=False).stdout


def test_what_was_taken_away_is_refused_and_allowed(machine: Machine) -> None:
    refused = machine.run(["nestctl", "launch", "demo", "--cpu-feature=-svm"], check=False)
    assert refused.code == 1 and "without svm: cpu-features takes it away." in refused.stderr
    assert "Leave -svm out." in refused.stderr
    assert "[NestingNotGranted]" in refused.stderr
    assert machine.out("nestctl", "--json", "list", "--all") == "[]"
    machine.sh(f"nestctl launch demo --cpu-feature=-svm --allow-no-nesting {IDLE}", timeout=240)
    told = show(machine, "demo")
    assert told["nesting"] is False and "svm" in told["missing-flags"]
    assert "(svm: its CPU takes it away)" in machine.out("nestctl", "show", "demo")
    machine.sh("nestctl kill demo")
