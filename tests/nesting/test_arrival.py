# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the driver came up with at boot: told once, with who decided it, until somebody settles it."""

from __future__ import annotations

from pathlib import Path

import pytest

from nestd.host.bootloader import NextBoot
from nestd.host.initramfs import Image
from nestd.model import Drift, Nesting, Scope, Verdict
from nestd.nesting import dropin, own
from nestd.nesting.arrival import Arrival
from nestd.nesting.steps import Wish
from tests.nesting.kept import ARRIVAL, NOTE, kept, machine
from tests.nesting.machines import Machine
from tests.support import loop
from tests.support.daemon import by_hand
from tests.support.tree import Tree

ON, OFF = Nesting.ON, Nesting.OFF
TOLD_OFF, TOLD_ON = "options kvm_amd nested=0\n", "options kvm_amd nested=1\n"
GRUB = "/boot/grub/grub.cfg"


@pytest.fixture
def amd(tmp_path: Path) -> Machine:
    """Told off, and it came up on."""
    found = machine(tmp_path)
    found.tree.write(dropin.PATH, TOLD_OFF)
    return found


def drifts(found: Machine, *, enforce: bool = False) -> list[object]:
    """What a daemon tells that starts now."""

    async def main() -> list[object]:
        async with kept(found, enforce=enforce) as life:
            return list(life.told)

    return loop.run(main())


def reboot(found: Machine) -> None:
    for path in (ARRIVAL, NOTE):
        if found.host.root.exists(path):
            found.tree.gone(path)


def test_as_told(amd: Machine) -> None:
    amd.tree.write(dropin.PATH, TOLD_ON)
    assert drifts(amd) == []


def test_nobody_told_anything(amd: Machine) -> None:
    amd.tree.gone(dropin.PATH)
    assert drifts(amd) == []
    assert not amd.host.root.exists(ARRIVAL)


def test_the_kernel_command_line_decided(amd: Machine) -> None:
    amd.tree.cmdline("kvm_amd.nested=1")
    cause = "it came up so in this boot, as the kernel command line gives on"
    assert drifts(amd) == [Drift(OFF, ON, cause)]


def test_a_later_file_decided(amd: Machine) -> None:
    amd.tree.dropin("zzz.conf", TOLD_ON)
    cause = "it came up so in this boot, as /etc/modprobe.d/zzz.conf:1 gives on"
    assert drifts(amd) == [Drift(OFF, ON, cause)]


def test_another_boot_entry_was_booted(amd: Machine) -> None:
    """By hand in the menu; what is configured for the next boot is right."""
    amd.tree.cmdline("kvm_amd.nested=1")
    amd.tree.write(GRUB, "menuentry Debian {\n linux /boot/vmlinuz root=/dev/vda\n}\n")
    cause = (
        "it came up so in this boot, as the kernel command line gives on; "
        f"{dropin.PATH}:1 gives off to the next boot"
    )
    assert drifts(amd) == [Drift(OFF, ON, cause)]


def test_what_is_configured_now_did_not_decide(amd: Machine) -> None:
    """An initramfs with an older copy, or somebody before nestd started."""
    [drift] = drifts(amd)
    assert isinstance(drift, Drift)
    assert drift.cause.startswith(f"it came up so in this boot, though {dropin.PATH}:1 gives off: the driver")
    assert "initramfs" in drift.cause


def test_an_initramfs_decided(amd: Machine) -> None:
    """One that is known (nestd/nesting/seen.py), with an older copy of the drop-in."""
    inside = Image("/boot/initrd.img", ("kvm", "kvm_amd"), ((dropin.PATH, TOLD_ON),))

    async def main() -> None:
        async with kept(amd) as life:
            reading = life.observer.reading
            configuration = reading.configuration._replace(image=inside)
            arrival = Arrival(amd.host.root)
            source = f"/boot/initrd.img:{dropin.PATH}:1"
            status = reading.status._replace(nested_at_boot=ON, boot_source=source)
            arrival.judge(reading._replace(status=status, configuration=configuration), OFF)
            assert arrival.drift == Drift(OFF, ON, f"it came up so in this boot, as {source} gives on")
            # Another kernel's decides only for the next boot.
            other = NextBoot("GRUB", "", "", "6.99", "/boot/initrd.img", "")
            configuration = configuration._replace(next_boot=other)
            arrival = Arrival(amd.host.root)
            arrival.judge(reading._replace(configuration=configuration), OFF)
            assert arrival.drift is not None and "though /etc/modprobe.d" in arrival.drift.cause

    loop.run(main())


def test_a_driver_that_is_built_in(tmp_path: Path) -> None:
    """Only a reboot can settle it; that it came up otherwise than it was told is said all the same."""
    tree = Tree(tmp_path).amd().builtin("kvm").builtin("kvm_amd", nested="0").cmdline("kvm_amd.nested=0")
    tree.write(own.PATH, own.text(own.Own(ON, "grub", ("kvm_amd.nested=1",))) or "").write(
        GRUB, "menuentry Debian {\n linux /boot/vmlinuz root=/dev/vda\n}\n"
    )
    found = Machine.of(tree)

    async def main() -> None:
        async with kept(found, enforce=True, delay=0.0) as life:
            cause = (
                "it came up so in this boot, as the kernel command line gives off; "
                "the kernel default gives on to the next boot"
            )
            assert life.observer.status.reboot_required
            assert life.told == [Drift(ON, OFF, cause)]
            [check] = life.keeper.checks()
            assert check.verdict is Verdict.WARN and check.remedy.startswith("Reboot.")
            assert not life.keeper.puts_back

    loop.run(main())


def test_a_later_daemon_says_the_same(amd: Machine) -> None:
    amd.tree.cmdline("kvm_amd.nested=1")
    [first] = drifts(amd)
    # What was booted with is not what is read now; the judgement of the first stands.
    amd.tree.cmdline("quiet")
    assert drifts(amd) == [first]
    reboot(amd)
    assert drifts(amd) != [first]


@pytest.mark.parametrize("restarted", [False, True])
def test_a_reload_by_hand_is_another_cause(amd: Machine, restarted: bool) -> None:
    amd.tree.cmdline("kvm_amd.nested=1")
    anew = Drift(OFF, ON, "the driver was loaded anew, and kernel command line gives on")

    async def main() -> None:
        async with kept(amd) as life:
            life.by_hand("nested=0")
            life.by_hand()
            assert life.told[1:] == [anew]

    loop.run(main())
    if restarted:
        assert drifts(amd) == [anew]


def test_told_anew_it_counts_no_more(amd: Machine) -> None:
    async def main() -> None:
        async with kept(amd) as life:
            await life.changer.change(Wish(ON, Scope.BOTH), False)
            assert life.keeper.drift is None
            life.by_hand("nested=0")
            assert life.told[1:] == [Drift(ON, OFF, "the driver was loaded anew with other arguments")]

    loop.run(main())


def test_the_first_to_tell_nestd_anything_is_no_boot(tmp_path: Path) -> None:
    """The driver runs, nobody had told anything; then it is told, for the next boot alone."""
    found = machine(tmp_path)

    async def told() -> None:
        async with kept(found) as life:
            await life.changer.change(Wish(OFF, Scope.BOOT), False)

    loop.run(told())
    assert drifts(found) == []
    reboot(found)
    assert len(drifts(found)) == 1


def test_a_driver_that_comes_late_is_judged_when_it_comes(amd: Machine) -> None:
    amd.tree.dropin("zzz.conf", TOLD_ON)

    async def main() -> None:
        async with kept(amd) as life:
            assert life.told == []
            life.tool("modprobe")
            assert life.drifts() == [("off", "on")]
            assert "it came up so in this boot" in life.keeper.checks()[0].message

    by_hand(amd.tools, "rmmod", "kvm_amd")
    loop.run(main())


@pytest.mark.parametrize(
    "text", ["{", "{}", '{"cause": 1}', '{"expected": "on", "actual": "x", "cause": "why"}']
)
def test_a_record_that_makes_no_sense_is_set_aside(amd: Machine, text: str) -> None:
    amd.tree.write(ARRIVAL, text).path(ARRIVAL).chmod(0o600)
    drifts(amd)
    assert amd.tree.read(f"{ARRIVAL}.broken") == text
