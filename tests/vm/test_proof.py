# SPDX-License-Identifier: LGPL-2.1-or-later
"""Verify, MeasureExit and CheckCpu for real, as people call them: nestd from its package, busctl, nestctl.

The machine is emulated, so its guest L1 runs on an emulated CPU's own KVM, and L2 one level deeper.
"""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.vm.agent_client import Result
from tests.vm.machine import Machine
from tests.vm.test_spine import ALLOW, MANAGER

# Seconds, many times what L1 takes on quiet processors.
LIMIT = 600
UNITS = ("systemctl", "list-units", "--all", "--plain", "--no-legend", "nestd-guest-*")


def ask(machine: Machine, member: str, *options: str, user: str = "root") -> dict[str, Any]:
    """Call a method of the manager with busctl; its result as a dictionary."""
    argv = ["busctl", "-j", f"--timeout={LIMIT + 60}", "call", *MANAGER, member, "a{sv}"]
    count = str(len([word for word in options if word.startswith("-")]))
    words = [word.removeprefix("-") for word in options]
    done = machine.run([*argv, count, *words], user=user, timeout=LIMIT + 120)
    answer = json.loads(done.stdout)["data"][0]
    return {key: value["data"] for key, value in answer.items()}


def verify(machine: Machine, *options: str, user: str = "root") -> dict[str, Any]:
    """Verify; whatever comes of it, nothing of the guest is left."""
    told = ask(machine, "Verify", "-timeout", "u", str(LIMIT), *options, user=user)
    assert machine.out(*UNITS) == ""
    assert machine.sh("ls /run/nestd/guests /run/nestd/registry 2>&1 | grep verify", check=False).code
    return told


def nestctl(machine: Machine, *words: str) -> Result:
    return machine.run(["nestctl", *words], check=False, timeout=LIMIT + 120)


def wait_for(machine: Machine, script: str) -> None:
    """Until the script succeeds."""
    deadline = time.monotonic() + LIMIT
    while machine.sh(script, check=False).code:
        assert time.monotonic() < deadline, script
        time.sleep(0.5)


def test_nesting_is_proved_and_disproved(machine: Machine) -> None:
    # A kernel that only root may read, as some distributions have it, is lent to the guest; so is one in a
    # folder that only root may enter.
    machine.sh("chmod 600 /boot/vmlinuz-*; chmod 700 /boot")
    told = verify(machine)
    assert (told["works"], told["level"], told["why"], told["unmeasured"]) == (True, "", "", "")
    assert told["extension"] and told["kvm-loaded"] and told["vm-created"] and told["ran"]
    assert "svm" in told["flags"] and "Nested Virtualization enabled" in told["log"]
    outside = ask(machine, "MeasureExit")
    assert outside["driver"] == "kvm_amd" and "EPYC" in outside["cpu-model"]
    for kind in ("kernel", "user"):
        for median, low, high, rounds in (outside["exits"][kind], told["exits"][kind]):
            assert rounds > 0 and median > 0 and low <= median <= high
        assert told["exits"][kind][0] > outside["exits"][kind][0]
    assert machine.out("ls", "/run/nestd/probe").endswith(".cpio.gz")
    assert machine.out("stat", "--format=%a", "/run/nestd/probe") == "755"
    assert nestctl(machine, "cpu", "--qemu").stdout == "-cpu host\n"
    # Now of a kernel that everybody may read, in the folder that is closed.
    machine.sh("chmod 644 /boot/vmlinuz-*")
    done = nestctl(machine, "verify", "--cpu-feature=-svm", "--json", f"--timeout={LIMIT}")
    told = json.loads(done.stdout)
    assert (done.code, told["level"], told["cpu"]) == (4, "L1", "host,-svm")
    assert told["why"] == "L1 has no svm: cpu-features takes svm away. Leave -svm out."
    machine.sh("chmod 755 /boot")

    machine.sh("nestctl disable --runtime")
    told = verify(machine)
    assert (told["works"], told["level"]) == (False, "L1")
    assert not told["extension"] and not told["kvm-loaded"] and told["exits"] == {}
    assert told["why"].startswith("L1 has no svm: with -cpu host this machine's KVM does not give it.")
    assert told["why"].endswith("Nesting is off here: turn it on (`nestctl enable`).")
    done = nestctl(machine, "cpu")
    assert done.code == 4 and "cannot nest on this machine" in done.stdout
    assert machine.out(*UNITS) == ""


@pytest.mark.nightly
def test_what_a_person_sees(machine: Machine) -> None:
    done = nestctl(machine, "verify", f"--timeout={LIMIT}")
    assert done.code == 0 and "Nesting: works — a guest of a guest ran" in done.stdout, done
    done = nestctl(machine, "measure", "--levels", f"--timeout={LIMIT}")
    assert done.code == 0 and "its guest (L2)" in done.stdout, done
    assert "One level deeper, an exit costs " in done.stdout
    assert "Measured on AMD EPYC" in done.stdout and "with kvm_amd, inside qemu" in done.stdout
    done = nestctl(machine, "measure", "--levels", "--json", f"--timeout={LIMIT}")
    assert done.code == 0, done
    ratios = json.loads(done.stdout)["ratios"]
    assert set(ratios) == {"kernel", "user"} and all(ratio > 1 for ratio in ratios.values())
    machine.sh("nestctl disable --runtime")
    done = nestctl(machine, "verify", f"--timeout={LIMIT}")
    assert done.code == 4 and "Nesting: does not work — L1 has no svm" in done.stdout, done


@pytest.mark.nightly
def test_a_user_proves_it_as_oneself(machine: Machine) -> None:
    machine.write("/etc/polkit-1/rules.d/10-test.rules", ALLOW)
    assert verify(machine, user="alice")["works"] is True
    found = ask(machine, "CheckCpu", "-cpu", "s", "EPYC", user="alice")
    assert found["qemu"] == "EPYC,+svm" and found["nesting"] is True
    assert "<model fallback='forbid'>EPYC</model>" in found["libvirt"]


@pytest.mark.nightly
def test_without_nested_paging_l2_cannot_start(machine: Machine) -> None:
    told = verify(machine, "-cpu", "s", "qemu64")
    assert told["level"] == "L2" and told["extension"] and told["vm-created"] and not told["ran"]
    assert "exit reason 9" in told["why"]
    assert "no nested paging (the CPU flag npt): with -cpu qemu64,+svm" in told["why"]


@pytest.mark.nightly
def test_what_does_not_boot_is_given_up(machine: Machine) -> None:
    told = ask(machine, "Verify", "-timeout", "u", "5")
    assert told["level"] == "L1" and "5 s were over" in told["why"]
    machine.sh("head --bytes=100000 /dev/zero > /run/nestd/probe/*.cpio.gz")
    told = verify(machine)
    assert told["level"] == "L1" and "its kernel panicked (Kernel panic" in told["why"]


@pytest.mark.nightly
def test_it_holds_the_driver_and_lets_go(machine: Machine) -> None:
    with machine.background(["nestctl", "verify", f"--timeout={LIMIT}"]):
        wait_for(machine, "systemctl is-active --quiet 'nestd-guest-_verify-*'")
        user = machine.sh("systemctl show --value --property=User 'nestd-guest-_verify-*'").stdout.strip()
        assert user == machine.out("id", "-u", "nestd")
        done = nestctl(machine, "disable", "--runtime")
        assert done.code == 5, done
        assert "in use by nestd's own guest, which ends by itself: qemu-system-x86" in done.stderr
        assert "Wait for their end" in done.stderr
        assert nestctl(machine, "disable", "--runtime", "--when-idle").code == 0
    # Its caller was killed: so the guest goes, and then the change has its way.
    wait_for(machine, "test $(cat /sys/module/kvm_amd/parameters/nested) = 0")
    assert machine.out(*UNITS) == ""

    with machine.background(["nestctl", "verify", f"--timeout={LIMIT}"]):
        wait_for(machine, "systemctl is-active --quiet 'nestd-guest-_verify-*'")
        machine.sh("systemctl kill --signal=KILL nestd")
        wait_for(machine, "test -z \"$(systemctl list-units --plain --no-legend 'nestd-guest-*')\"")
        assert nestctl(machine, "list").stdout == "No guests.\n"


@pytest.mark.nightly
def test_what_is_missing_is_named(machine: Machine) -> None:
    machine.sh("find /lib/modules/ -name 'kvm-amd.ko*' -delete")
    done = nestctl(machine, "verify")
    assert done.code == 1 and "the kernel was upgraded or removed" in done.stderr, done
    assert "[VerifyFailed]" in done.stderr
    machine.sh("rm -f /dev/kvm")
    done = nestctl(machine, "measure")
    assert done.code == 4 and "kvm-unusable: /dev/kvm cannot be used" in done.stderr, done
