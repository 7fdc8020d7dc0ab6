# SPDX-License-Identifier: LGPL-2.1-or-later
"""What nestd says of the next boot, held against a real one: udev, kmod and kvm_amd of Linux 6.1."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from tests.vm.machine import Machine

MANAGER = ("org.nestd1", "/org/nestd1", "org.nestd1.Manager")
PARAMETER = "/sys/module/kvm_amd/parameters/nested"
GRUB = "/boot/grub/grub.cfg"


class Case(NamedTuple):
    """`files` are written before (None: a link to /dev/null), `arguments` given by the boot loader.

    `at_boot` and `source` are what nestd has to say before, `parameter` is what the kernel shows after the
    reboot, None where the driver is not loaded; `by_hand` what it shows once it was loaded by hand.
    """

    name: str
    at_boot: str
    source: str
    parameter: str | None
    files: Mapping[str, str | None] = MappingProxyType({})
    arguments: str = ""
    by_hand: str | None = None


CASES = (
    Case(
        "a masked file, a continued line",
        "off",
        "/etc/modprobe.d/kvm.conf:2",
        "0",
        {
            "/etc/modprobe.d/kvm.conf": "# x\noptions kvm-amd \\\n nested=0\n",
            "/usr/lib/modprobe.d/z.conf": "options kvm_amd nested=1\n",
            "/etc/modprobe.d/z.conf": None,
        },
    ),
    Case(
        "nestd's own file loses to a later one",
        "on",
        "/etc/modprobe.d/zzz.conf:1",
        "1",
        {
            "/etc/modprobe.d/zz-nestd.conf": "options kvm_amd nested=0\n",
            "/etc/modprobe.d/zzz.conf": "options kvm_amd nested=1\n",
        },
    ),
    Case(
        "the boot loader's line wins over all files",
        "off",
        f"{GRUB}:2",
        "0",
        {"/etc/modprobe.d/zzz.conf": "options kvm_amd nested=1\n"},
        "kvm-amd.nested=0",
    ),
    Case("arguments behind two dashes", "off", f"{GRUB}:2", "0", {}, "quiet -- kvm_amd.nested=0"),
    Case(
        "a blacklisted driver",
        "off",
        "/etc/modprobe.d/kvm.conf:2",
        None,
        {"/etc/modprobe.d/kvm.conf": "blacklist kvm_amd\noptions kvm_amd nested=0\n"},
        by_hand="0",
    ),
    Case(
        "install that loads nothing",
        "off",
        "/etc/modprobe.d/kvm.conf:1",
        None,
        {"/etc/modprobe.d/kvm.conf": "install kvm_amd /bin/false\noptions kvm_amd nested=1\n"},
    ),
    Case(
        "install with arguments, which beat the command line",
        "off",
        "/etc/modprobe.d/kvm.conf:1",
        "0",
        {
            "/etc/modprobe.d/kvm.conf": "install kvm_amd /sbin/modprobe --ignore-install kvm_amd "
            "$CMDLINE_OPTS nested=0\n"
        },
        "kvm_amd.nested=1",
    ),
    Case(
        "install with arguments, which the command line beats",
        "on",
        f"{GRUB}:2",
        "1",
        {
            "/etc/modprobe.d/kvm.conf": "install kvm_amd /sbin/modprobe --ignore-install kvm_amd nested=0 "
            "$CMDLINE_OPTS\n"
        },
        "kvm_amd.nested=1",
    ),
    Case(
        "a soft dependency makes kmod forget install",
        "on",
        "kernel default",
        "1",
        {"/etc/modprobe.d/kvm.conf": "install kvm_amd /bin/false\nsoftdep kvm_amd pre: kvm\n"},
    ),
    Case(
        "a value that the kernel refuses",
        "off",
        "/etc/modprobe.d/a.conf:1",
        None,
        {
            "/etc/modprobe.d/a.conf": "options kvm_amd nested=Y\n",
            "/etc/modprobe.d/b.conf": "options kvm_amd nested=1\n",
        },
    ),
    Case("module_blacklist", "off", f"{GRUB}:2", None, {}, "module_blacklist=kvm_amd"),
    Case("initcall_blacklist", "off", f"{GRUB}:2", None, {}, "initcall_blacklist=svm_init"),
    Case(
        "blacklists that name it with a dash, which nobody understands",
        "on",
        "kernel default",
        "1",
        {},
        "module_blacklist=kvm-amd modprobe.blacklist=kvm-amd",
    ),
)


def status(machine: Machine) -> dict[str, Any]:
    answer = json.loads(machine.out("busctl", "-j", "call", *MANAGER, "GetStatus"))["data"][0]
    return {key: value["data"] for key, value in answer.items()}


def diagnosis(machine: Machine) -> dict[str, list[str]]:
    # An initramfs of dracut's takes a while to look into, in emulation.
    argv = ["busctl", "-j", "--timeout=300", "call", *MANAGER, "Diagnose"]
    rows = json.loads(machine.run(argv, timeout=400).stdout)["data"][0]
    return {row[0]: row[1:] for row in rows}


def parameter(machine: Machine) -> str | None:
    found = machine.run(["cat", PARAMETER], check=False)
    return found.stdout.strip() if found.code == 0 else None


# One of each kind by day.
BY_DAY = (0, 2, 4, 6, 9)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.name, marks=() if number in BY_DAY else pytest.mark.nightly)
        for number, case in enumerate(CASES)
    ],
)
def test_as_told(machine: Machine, case: Case) -> None:
    for path, text in case.files.items():
        if text is None:
            machine.sh(f"ln -s /dev/null {path}")
        else:
            machine.write(path, text)
    if case.arguments:
        machine.write(GRUB, f"menuentry Debian {{\n linux /boot/vmlinuz root=/dev/vda {case.arguments}\n}}\n")
    machine.sh("systemctl restart nestd")
    before = status(machine)
    assert (before["nested-at-boot"], before["boot-source"]) == (case.at_boot, case.source)
    rows = diagnosis(machine)
    assert (
        rows["next-boot"][0] == "pass" and case.source.replace("kernel default", "") in rows["next-boot"][1]
    )
    assert (rows["blacklist"][0] == "warn") is (case.by_hand is not None)

    machine.restart(case.arguments or None)
    assert parameter(machine) == case.parameter
    after = status(machine)
    assert after["nested"] == ("on" if case.parameter == "1" else "off")
    assert after["nested-at-boot"] == case.at_boot
    if case.by_hand is not None:
        machine.sh("modprobe kvm_amd")
        assert parameter(machine) == case.by_hand
    if case.arguments:
        # What GRUB is told and what the kernel was given are one now.
        assert diagnosis(machine)["command-line"][0] == "pass"
