# SPDX-License-Identifier: LGPL-2.1-or-later
"""What nestd sets for the next boot, on machines that boot through a real boot loader from their disk.

The driver is a module, so nestd writes the kernel command line only where somebody's argument is replaced,
and makes the initramfs anew only where it carries the driver.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from nestd.log import HEALED
from tests.support import faults
from tests.vm import chains, image, package
from tests.vm.agent_client import Result
from tests.vm.boot import boot
from tests.vm.machine import Machine
from tests.vm.progress import Progress
from tests.vm.test_boot import diagnosis, parameter, status
from tests.vm.test_faults import calls_made, fault_at_write, set_fault, wait_for
from tests.vm.test_spine import DROPIN

THEIRS = "kvm_amd.nested=0"
OLD = "/etc/modprobe.d/old.conf"
ARGUED, EARLY, COUNTED = "argued", "early", "counted"
# What a change of the next boot could touch. systemd-boot itself writes its random seed anew at each boot.
TREES = "/boot /etc/default /etc/kernel /etc/modprobe.d /etc/initramfs-tools /etc/dracut.conf.d"
SUMS = f"""cd /
there=$(ls -d {TREES} 2>/dev/null || true)
find $there ! -name random-seed -printf '%y %m %u %p %l\\n' | sort
find $there -type f ! -name random-seed -print0 | sort -z | xargs -0 sha256sum
"""


class Ground(NamedTuple):
    """A chain's own words: texts of bash.

    `argue` puts THEIRS on the command line of the next boot, as an administrator would; `half` is what
    `tool`, which writes that line for nestd, does when it fails halfway (the call whose arguments match the
    pattern `called`). `early` has the initramfs load the driver; `renew` makes the image anew by the
    program `maker`, whose half is `torn`.
    """

    chain: str
    argue: str
    tool: str
    called: str
    half: str
    early: str
    renew: str
    maker: str
    torn: str


GRUB = Ground(
    "grub",
    f"sed -i 's/^GRUB_CMDLINE_LINUX=\"/&{THEIRS} /' /etc/default/grub; update-grub",
    "/usr/sbin/update-grub",
    "*",
    "head -c 1000 /boot/grub/grub.cfg > /boot/grub/half; cat /boot/grub/half > /boot/grub/grub.cfg",
    "echo kvm_amd >> /etc/initramfs-tools/modules",
    "update-initramfs -u -k all",
    "/usr/sbin/update-initramfs",
    "truncate -s 100000 /boot/initrd.img-$(uname -r)",
)
SYSTEMD_BOOT = Ground(
    "systemd-boot",
    "sed -n 's/^options *//p' /boot/efi/loader/entries/*.conf > /etc/kernel/cmdline;"
    f"sed -i 's/$/ {THEIRS}/' /etc/kernel/cmdline; kernel-install add $(uname -r) /boot/vmlinuz-$(uname -r)",
    "/usr/bin/sed",
    "*/boot/efi/loader/entries/*",
    "echo half",
    "echo 'force_drivers+=\" kvm_amd \"' > /etc/dracut.conf.d/early.conf",
    "dracut -f /boot/initrd.img-$(uname -r) $(uname -r);"
    "kernel-install add $(uname -r) /boot/vmlinuz-$(uname -r)",
    "/usr/bin/dracut",
    'head -c 100000 /boot/initrd.img-$(uname -r) > "$2"',
)
GROUNDS = {ground.chain: ground for ground in (GRUB, SYSTEMD_BOOT)}
LONG = 900.0  # seconds, for what takes one or two minutes
AT_BOOT = "busctl get-property org.nestd1 /org/nestd1 org.nestd1.Manager NestedAtBoot"
nightly = pytest.mark.nightly
grub_in_ci = pytest.mark.parametrize(
    "chained", ["grub", pytest.param("systemd-boot", marks=nightly)], indirect=True
)


class Booted(NamedTuple):
    """A machine of a chain, the names of its snapshots besides INSTALLED, how many calls a change makes."""

    machine: Machine
    ground: Ground
    saved: set[str]
    calls: dict[str, int]


@pytest.fixture(scope="module", params=GROUNDS)
def chained(request: pytest.FixtureRequest, deb: Path, progress: Progress) -> Iterator[Booted]:
    """The chain's machine with nestd, which lives as long as this module's tests of the chain."""
    chain = chains.CHAINS[request.param]
    with boot(progress, built=image.ensure(progress, chain=chain)) as machine:
        progress(f"installing {deb.name} in the machine of {chain.name}")
        package.install(machine, deb)
        machine.save(package.INSTALLED)
        yield Booted(machine, GROUNDS[chain.name], set(), {})


@pytest.fixture
def ground(chained: Booted) -> Ground:
    return chained.ground


@pytest.fixture
def machine(chained: Booted) -> Machine:
    """A machine in which nestd was just installed from its package, and runs."""
    chained.machine.load(package.INSTALLED)
    return chained.machine


@pytest.fixture
def argued(chained: Booted) -> Machine:
    """The same, in which somebody has put THEIRS on the kernel's command line, for the next boot."""
    return _prepared(chained, ARGUED, chained.ground.argue)


@pytest.fixture
def early(chained: Booted) -> Machine:
    """The same, whose initramfs loads the driver, with an option that the system itself has no longer."""
    ground = chained.ground
    script = f"echo options kvm_amd nested=0 > {OLD}; {ground.early}; {ground.renew}; rm {OLD}"
    return _prepared(chained, EARLY, script)


def _prepared(chained: Booted, name: str, script: str) -> Machine:
    machine = chained.machine
    if name in chained.saved:
        machine.load(name)
    else:
        machine.load(package.INSTALLED)
        machine.sh(f"{script}; sync", timeout=LONG)
        machine.save(name)
        chained.saved.add(name)
    return machine


# -- a change, and what is ----------------------------------------------------------------------------


def change(machine: Machine, *words: str, check: bool = True) -> Result:
    """`nestctl WORDS`; an initramfs takes minutes here."""
    return machine.run(["nestctl", *words], check=check, timeout=LONG)


def trees(machine: Machine, *but: str) -> list[str]:
    """Names, modes and sums of all that a change of the next boot could touch."""
    lines = machine.sh(SUMS).stdout.splitlines()
    return [line for line in lines if not any(word in line for word in but)]


def told(machine: Machine) -> tuple[str, str]:
    """What nestd says of the next boot: its setting, and what decides it."""
    now = status(machine)
    return now["nested-at-boot"], now["boot-source"]


def assert_refused(result: Result, *words: str) -> None:
    assert result.code != 0
    for word in words:
        assert word in result.stderr, result.stderr


def assert_holds(machine: Machine, nested: str) -> None:
    """After a reboot: the kernel has it, and nestd says of it and of the next boot what it said before."""
    before = told(machine)
    assert before[0] == nested
    machine.reboot()
    assert parameter(machine) == ("1" if nested == "on" else "0")
    assert status(machine)["nested"] == nested
    assert told(machine) == before


def stand_in(machine: Machine, tool: str, before: str, after: str = "", called: str = "*") -> None:
    """Have the next call of the program whose arguments are `called` meet `before` or `after` its work.

    Later ones are as ever, as are those of others.
    """
    name = tool.rpartition("/")[2]

    def once(what: str) -> str:
        met = f"rm /run/fault; : > /run/reached; {what}"
        return f'if [ -e /run/fault ]; then case "$*" in {called}) {met};; esac; fi\n' if what else ""

    machine.sh(f"mkdir -p /usr/local/lib/real; mv {tool} /usr/local/lib/real/{name}")
    script = f'#!/bin/sh\n{once(before)}/usr/local/lib/real/{name} "$@"\ncode=$?\n{once(after)}exit $code\n'
    machine.write(tool, script, mode=0o755)
    machine.sh("touch /run/fault; sync")


# -- it holds -----------------------------------------------------------------------------------------


def test_it_boots_through_its_loader(machine: Machine, ground: Ground) -> None:
    """What all others stand on."""
    line = machine.text("/proc/cmdline")
    assert ("BOOT_IMAGE=/boot/vmlinuz-" if ground is GRUB else "initrd=\\") in line
    assert machine.sh("test -d /sys/firmware/efi", check=False).code == (1 if ground is GRUB else 0)
    assert diagnosis(machine)["next-boot"][0] == "pass"


def test_it_holds(machine: Machine) -> None:
    before = trees(machine)
    change(machine, "disable", "--boot")
    assert parameter(machine) == "1"
    assert told(machine) == ("off", f"{DROPIN}:{machine.text(DROPIN).count(chr(10))}")
    assert_holds(machine, "off")
    change(machine, "enable", "--boot")
    assert_holds(machine, "on")
    change(machine, "revert")
    assert trees(machine) == before


@nightly
def test_purge_takes_all_back(machine: Machine) -> None:
    before = trees(machine)
    change(machine, "disable")
    assert trees(machine) != before
    own = purge(machine)
    assert trees(machine) == [line for line in before if line not in own]


def purge(machine: Machine) -> set[str]:
    """Purge nestd; the lines of `trees` that were its package's own folders, and go with it where empty."""
    alone = 'case $(dpkg -S "$one") in "nestd: "*) echo "$one";; esac'
    folders = machine.sh(
        f'dpkg -L nestd | while read one; do [ ! -d "$one" ] || {alone}; done'
    ).stdout.split()
    lines = machine.sh(
        f"find {' '.join(folders)} -maxdepth 0 -printf '%y %m %u %p %l\\n'"
    ).stdout.splitlines()
    machine.sh("dpkg -P nestd", timeout=600)
    return set(lines)


# -- the command line against the drop-in -------------------------------------------------------------


@grub_in_ci
def test_an_argument_of_somebody_else(argued: Machine, ground: Ground) -> None:
    machine, before = argued, trees(argued)
    wait_for(machine, f"{AT_BOOT} | grep -q off")  # it is noticed by an event
    assert_refused(change(machine, "enable", "--boot", check=False), THEIRS, "Nothing was changed")
    assert trees(machine) == before

    change(machine, "enable", "--boot", "--replace")
    assert told(machine)[0] == "on"
    assert_holds(machine, "on")
    assert THEIRS not in machine.text("/proc/cmdline")
    changed = trees(machine)
    change(machine, "enable", "--boot", "--replace")
    assert trees(machine) == changed  # twice is as once

    change(machine, "revert")
    assert trees(machine) == before
    assert_holds(machine, "off")
    assert THEIRS in machine.text("/proc/cmdline").split()


@nightly
def test_purge_gives_an_argument_back(argued: Machine) -> None:
    machine, before = argued, trees(argued)
    change(machine, "enable", "--boot", "--replace")
    assert trees(machine) != before
    own = purge(machine)
    assert trees(machine) == [line for line in before if line not in own]
    assert machine.sh("test -e /var/lib/nestd", check=False).code == 1


@nightly
def test_a_tool_that_fails(argued: Machine, ground: Ground) -> None:
    machine, before = argued, trees(argued)
    fire = f"{ground.half}; echo the disk is on fire >&2; exit 1"
    stand_in(machine, ground.tool, fire, called=ground.called)
    result = change(machine, "enable", "--boot", "--replace", check=False)
    assert machine.sh("test -e /run/reached", check=False).code == 0
    assert_refused(result, "the disk is on fire")
    machine.sh("rm -f /boot/grub/half")
    assert trees(machine) == before
    assert told(machine)[0] == "off"
    assert "the disk is on fire" in machine.out("journalctl", "--no-pager", "-o", "cat", "-u", "nestd-change")
    change(machine, "enable", "--boot", "--replace")
    assert told(machine)[0] == "on"


# -- the driver in the initramfs ----------------------------------------------------------------------


# To make an image takes minutes in emulation.
@nightly
@pytest.mark.parametrize("chained", GROUNDS, indirect=True)
def test_a_stale_option_in_the_initramfs(early: Machine) -> None:
    machine, before = early, trees(early, "initrd.img")
    rows = diagnosis(machine)
    assert rows["initramfs"][0] == "warn", rows
    nested, source = told(machine)
    assert nested == "off" and f"{OLD}:1" in source and "initrd.img-" in source
    assert_holds(machine, "off")

    change(machine, "enable", "--boot")
    assert_holds(machine, "on")
    assert diagnosis(machine)["initramfs"][0] == "pass"
    change(machine, "revert")
    assert trees(machine, "initrd.img") == before


@nightly
@pytest.mark.parametrize("chained", GROUNDS, indirect=True)
def test_an_image_that_cannot_be_made(early: Machine, ground: Ground) -> None:
    machine, before = early, trees(early)
    stand_in(machine, ground.maker, f"{ground.torn}; echo no space left in the bucket >&2; exit 1")
    result = change(machine, "enable", "--boot", check=False)
    assert machine.sh("test -e /run/reached", check=False).code == 0
    assert_refused(result, "no space left in the bucket")
    assert trees(machine) == before
    assert told(machine)[0] == "off"
    journal = machine.out("journalctl", "--no-pager", "-o", "cat", "-u", "nestd-change")
    assert "no space left in the bucket" in journal


# -- the power is cut ---------------------------------------------------------------------------------


def assert_whole(machine: Machine, before: list[str], *but: str, new: bool | None = None) -> None:
    """After the power cut it is old or new (`new`: which it must be), in whole, and can be taken back."""
    nested, source = told(machine)
    assert diagnosis(machine)["change"][0] == "pass"
    assert new is None or (nested == "on") is new, source
    if nested == "on":
        journal = machine.out("journalctl", "-b", "--no-pager", "-o", "cat", f"MESSAGE_ID={HEALED}")
        assert "was interrupted" in journal
        change(machine, "revert")
    assert trees(machine, *but) == before
    assert machine.sh("ls -A /var/lib/nestd/kept 2>/dev/null || true").stdout == ""


@grub_in_ci
@pytest.mark.parametrize("when", [pytest.param("before", marks=nightly), "after"])
def test_the_power_is_cut_around_a_tool(argued: Machine, ground: Ground, when: str) -> None:
    machine, before = argued, trees(argued)
    hang = "sync; sleep 1000"
    before_it, after_it = (hang, "") if when == "before" else ("", hang)
    stand_in(machine, ground.tool, before_it, after_it, called=ground.called)
    machine.start(["nestctl", "enable", "--boot", "--replace"])
    wait_for(machine, "test -e /run/reached", LONG)
    machine.power_cut()
    assert_whole(machine, before, new=True)


@nightly
@pytest.mark.parametrize("when", ["before", "after"])
def test_the_power_is_cut_around_an_image(early: Machine, ground: Ground, when: str) -> None:
    machine, before = early, trees(early, "initrd.img")
    hang = "sync; sleep 1000"
    stand_in(machine, ground.maker, hang if when == "before" else "", hang if when == "after" else "")
    machine.start(["nestctl", "enable", "--boot"], timeout=LONG)
    wait_for(machine, "test -e /run/reached", LONG)
    machine.power_cut()
    wait_for(machine, "test ! -e /var/lib/nestd/change", LONG)  # it makes the image again
    assert_whole(machine, before, "initrd.img", new=True)
    assert_holds(machine, "off" if told(machine)[0] == "off" else "on")


@pytest.fixture
def counted(chained: Booted, argued: Machine, tmp_path: Path) -> tuple[Machine, int]:
    """ARGUED, nestd being ready to hang at a call that changes a file system; how many a change makes."""
    if COUNTED in chained.saved:
        argued.load(COUNTED)
    else:
        fault_at_write(argued, tmp_path, -1, 0)
        before = trees(argued)
        for _ in range(2):  # the first time it looks into what the boot partition has
            set_fault(argued, -1, 0)
            change(argued, "enable", "--boot", "--replace")
            chained.calls[COUNTED] = calls_made(argued)
            change(argued, "revert")
        assert trees(argued) == before
        argued.save(COUNTED)
        chained.saved.add(COUNTED)
    return argued, chained.calls[COUNTED]


# Of an undisturbed change's writes, the middle of each eighth.
@nightly
@pytest.mark.parametrize("part", range(8))
def test_the_power_is_cut_at_a_write(counted: tuple[Machine, int], part: int) -> None:
    machine, calls = counted
    before = trees(machine)
    number = calls * (2 * part + 1) // 16
    set_fault(machine, number, faults.HANG)
    machine.start(["nestctl", "enable", "--boot", "--replace"])
    deadline = time.monotonic() + LONG
    while (made := calls_made(machine)) <= number:
        assert time.monotonic() < deadline, f"{made} calls of {number}"
        time.sleep(0.2)
    machine.power_cut()
    assert_whole(machine, before)
