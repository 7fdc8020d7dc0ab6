# SPDX-License-Identifier: LGPL-2.1-or-later
"""Measuring and Verify for real: nestd's own unit, with its sandbox, runs proof.py in place of the daemon.

The machine is emulated, so the small guest is the emulated CPU's own, and in Verify one level deeper.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.vm.machine import Machine

_DROPIN = """[Service]
Type=oneshot
NotifyAccess=none
BusName=
Restart=no
WatchdogSec=0
ExecReload=
ExecStart=
ExecStart=/usr/bin/python3 /opt/proof/proof.py {arguments}
StandardOutput=truncate:/proof.json
"""


@pytest.fixture
def proving(machine: Machine) -> Machine:
    """A machine that has cpio, which its image has not, and no daemon."""
    cpio = shutil.which("cpio")
    assert cpio, "cpio is not installed: run tests/setup"
    machine.push(Path(__file__).with_name("proof.py"), Path(cpio).resolve(), to="/opt/proof")
    machine.sh("systemctl stop nestd; mv /opt/proof/cpio /usr/bin/cpio; modprobe kvm_amd")
    return machine


def prove(machine: Machine, arguments: str) -> Any:
    """Run proof.py in nestd's sandbox; what it tells."""
    machine.write("/run/systemd/system/nestd.service.d/zz-proof.conf", _DROPIN.format(arguments=arguments))
    machine.run(["systemctl", "daemon-reload"])
    done = machine.run(["systemctl", "start", "nestd"], check=False, timeout=400)
    assert done.code == 0, machine.out("journalctl", "--no-pager", "--unit=nestd", "--lines=40")
    told = json.loads(machine.text("/proof.json"))
    # Whatever came of it, nothing of the guest is left.
    left = machine.out("systemctl", "list-units", "--all", "--plain", "--no-legend", "nestd-guest-*")
    assert (
        left == ""
        and machine.sh("ls /run/nestd/guests /run/nestd/registry 2>&1 | grep verify", check=False).code
    )
    return told


def verify(machine: Machine, initrd: str = "", **asked: object) -> Any:
    request = json.dumps({"user": "nestd", "limit": 240.0, **asked}, separators=(",", ":"))
    return prove(machine, f"verify '{request}' {initrd}")


def test_nesting_works_and_has_its_price(proving: Machine) -> None:
    outside = prove(proving, "measure")
    # A kernel that only root may read, as some distributions have it, is lent to the guest.
    proving.sh("chmod 600 /boot/vmlinuz-*")
    found = verify(proving)
    seen = found["verdict"]
    assert (seen["level"], seen["why"]) == ("", "")
    assert seen["extension"] and seen["kvm_loaded"] and seen["vm_created"] and seen["ran"]
    assert "svm" in seen["flags"] and "Nested Virtualization enabled" in seen["log"]
    for kind in ("kernel", "user"):
        for spread in (outside[kind], seen["exits"][kind]):
            assert spread["rounds"] > 0 and spread["median"] > 0 and spread["low"] <= spread["high"]
    assert proving.out("ls", "/run/nestd/probe").endswith(".cpio.gz")
    assert proving.out("stat", "--format=%a", "/run/nestd/probe") == "755"


@pytest.mark.nightly
def test_without_nested_paging_l2_cannot_start(proving: Machine) -> None:
    seen = verify(proving, cpu="qemu64")["verdict"]
    assert seen["level"] == "L2" and seen["extension"] and seen["vm_created"] and not seen["ran"]
    assert (
        "exit reason 9" in seen["why"]
        and "no nested paging (the CPU flag npt): with -cpu qemu64,+svm" in seen["why"]
    )


def test_with_nesting_off_l1_has_no_extension(proving: Machine) -> None:
    proving.sh("modprobe -r kvm_amd; modprobe kvm_amd nested=0")
    seen = verify(proving)["verdict"]
    assert seen["level"] == "L1" and not seen["extension"] and not seen["kvm_loaded"]
    assert seen["why"].startswith("L1 has no svm: with -cpu host this machine's KVM does not give it.")


@pytest.mark.nightly
def test_what_does_not_boot_is_given_up(proving: Machine) -> None:
    late = verify(proving, limit=1.0)["verdict"]
    assert late["level"] == "L1" and "did not boot: 1 s were over" in late["why"]
    proving.sh("head --bytes=100000 /dev/zero > /srv/broken; chmod 644 /srv/broken")
    broken = verify(proving, "/srv/broken")["verdict"]
    assert broken["level"] == "L1" and "its kernel panicked (Kernel panic" in broken["why"]


def test_what_is_missing_is_named(proving: Machine) -> None:
    proving.sh("find /lib/modules/ -name 'kvm-amd.ko*' -delete")
    told = verify(proving)
    assert told["error"] == "Failed" and "the kernel was upgraded or removed" in told["text"]
    proving.sh("modprobe -r kvm_amd; rm -f /dev/kvm")
    told = prove(proving, "measure")
    assert told["error"] == "NotSupported" and told["text"].startswith(
        "kvm-unusable: /dev/kvm cannot be used"
    )
