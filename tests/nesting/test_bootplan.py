# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the boot half of a change is to come to, case by case; and what is noted, to be taken back."""

from __future__ import annotations

from pathlib import Path

import pytest

from nestd import errors
from nestd.host.bootloader import NextBoot
from nestd.model import Driver, DriverState, Extension, Nesting, Obstacle, Policy, Scope, Status
from nestd.nesting import boot, bootplan, drivers, dropin, own
from nestd.nesting.loaders import grub
from nestd.nesting.own import Own
from nestd.nesting.status import Reading
from nestd.nesting.steps import Wish
from nestd.text.arguments import Edit
from tests.nesting.machines import Machine
from tests.support import loop
from tests.support.tree import Tree

ON, OFF = Nesting.ON, Nesting.OFF
DRIVERS = {driver.name: driver for driver in drivers.table("6.1.0")}
AMD, ARM = DRIVERS["kvm_amd"], DRIVERS["kvm_arm"]
GRUB = "/boot/grub/grub.cfg:7"
LOADED, BUILTIN = DriverState.LOADED, DriverState.BUILTIN


def reading(
    line: str,
    state: DriverState = LOADED,
    *files: tuple[str, str],
    driver: Driver = AMD,
    running: str | None = None,
) -> Reading:
    """A machine that GRUB boots with `line`, whose kernel was given `running`."""
    following = NextBoot("GRUB", GRUB, line, "6.1.0", "", "")
    configuration = boot.Configuration(files, line if running is None else running, following, "6.1.0")
    at_boot = boot.solve(configuration, driver, state)
    status = Status(
        Extension.SVM, driver.name, state, ON, at_boot.nested, Policy.UNMANAGED, False, Obstacle.NONE, "none",
        {}, 12, True, 0, at_boot.source, at_boot.overridden,
    )  # fmt: skip
    return Reading(status, driver, configuration, False)


def aim(
    found: Reading, nested: Nesting | None, had: Own | None = None, *, replace: bool = False
) -> bootplan.Aim:
    return bootplan.aim(found, had or Own(), Wish(nested, Scope.BOOT, replace))


def test_a_module_gets_the_drop_in_and_the_command_line_is_left_alone() -> None:
    goal = aim(reading("quiet"), OFF)
    assert (goal.dropin, goal.wanted, goal.nested) == (dropin.text(AMD, OFF), Edit(), None)
    assert aim(reading("quiet kvm_amd.nested=0"), OFF).wanted == Edit()


@pytest.mark.parametrize("theirs", ["kvm_amd.nested=1", "kvm-amd.nested=1", "kvm_amd.nested=Y"])
def test_what_somebody_put_on_the_command_line_is_named_and_replaced_only_if_told(theirs: str) -> None:
    found = reading(f"quiet {theirs} splash")
    if theirs.endswith("Y"):  # the kernel refuses it, so that the driver would not be loaded
        with pytest.raises(errors.Overridden, match=theirs):
            aim(found, ON)
        return
    with pytest.raises(errors.Overridden, match=rf"{GRUB} has {theirs}.*--replace.*nestctl revert"):
        aim(found, OFF)
    goal = aim(found, OFF, replace=True)
    assert (goal.dropin, goal.wanted) == (dropin.text(AMD, OFF), Edit(remove=(theirs,)))
    assert goal.after.arguments[0] == "quiet splash"
    assert boot.solve(goal.after, AMD, LOADED).source.startswith(dropin.PATH)


def test_what_was_replaced_stays_so_until_it_is_taken_back() -> None:
    had = Own(None, "grub", (), ("kvm_amd.nested=0",))
    found = reading("quiet", LOADED, (dropin.PATH, dropin.text(AMD, ON)))
    assert aim(found, OFF, had).wanted == Edit(remove=("kvm_amd.nested=0",))
    goal = aim(found, None, had)
    assert (goal.dropin, goal.wanted) == (None, Edit())
    assert goal.after.arguments[0] == "quiet kvm_amd.nested=0"


@pytest.mark.parametrize(
    "line", ["module_blacklist=kvm_amd", "initcall_blacklist=svm_init", "nomodule"], ids=lambda line: line
)
def test_what_is_no_setting_of_the_switch_is_not_replaced(line: str) -> None:
    with pytest.raises(errors.Overridden, match=GRUB):
        aim(reading(line), ON, replace=True)


def test_another_file_that_wins_is_not_replaced() -> None:
    found = reading("quiet", LOADED, ("/etc/modprobe.d/zzz.conf", "options kvm_amd nested=1\n"))
    with pytest.raises(errors.Overridden, match=r"/etc/modprobe\.d/zzz\.conf:1"):
        aim(found, OFF, replace=True)


def test_a_driver_that_is_built_in_gets_an_argument() -> None:
    goal = aim(reading("quiet", BUILTIN), OFF)
    assert (goal.dropin, goal.wanted, goal.nested) == (None, Edit(("kvm_amd.nested=0",)), OFF)
    assert not goal.optional
    # It is on already, and should be kept so; nothing is lost where nobody can say it.
    goal = aim(reading("quiet", BUILTIN), ON)
    assert (goal.wanted, goal.optional) == (Edit(("kvm_amd.nested=1",)), True)


def test_what_somebody_says_already_is_not_said_twice() -> None:
    goal = aim(reading("kvm_amd.nested=0", BUILTIN), OFF)
    assert (goal.wanted, goal.nested) == (Edit(), OFF)


def test_an_argument_of_somebody_else_for_a_driver_that_is_built_in() -> None:
    found = reading("quiet kvm-amd.nested=1", BUILTIN)
    with pytest.raises(errors.Overridden, match=r"kvm-amd\.nested=1, which somebody else put"):
        aim(found, OFF)
    goal = aim(found, OFF, replace=True)
    assert goal.wanted == Edit(("kvm_amd.nested=0",), ("kvm-amd.nested=1",))
    assert goal.after.arguments[0] == "quiet kvm_amd.nested=0"


def test_its_own_argument_is_nestds_to_change() -> None:
    had = Own(OFF, "grub", ("kvm_amd.nested=0",), ("kvm-amd.nested=1",))
    found = reading("quiet kvm_amd.nested=0", BUILTIN)
    assert aim(found, OFF, had).wanted == Edit(had.added, had.removed)
    assert aim(found, ON, had).wanted == Edit(("kvm_amd.nested=1",), had.removed)
    assert aim(found, None, had).after.arguments[0] == "quiet kvm-amd.nested=1"
    # Somebody has taken it away meanwhile: it is put there again, by the back end.
    assert aim(reading("quiet", BUILTIN), OFF, had).wanted == Edit(had.added, had.removed)


def test_the_next_kernel_counts_and_not_the_running_one() -> None:
    found = reading("quiet", LOADED)
    following = NextBoot("GRUB", GRUB, "quiet", "6.12.0", "", "")
    configuration = found.configuration._replace(
        next_boot=following, elsewhere=(("kvm_amd", DriverState.BUILTIN),)
    )
    assert aim(found._replace(configuration=configuration), OFF).wanted == Edit(("kvm_amd.nested=0",))


def test_arm64_has_no_argument_for_off() -> None:
    assert aim(reading("quiet", BUILTIN, driver=ARM), ON).wanted == Edit(("kvm-arm.mode=nested",))
    assert aim(reading("quiet", BUILTIN, driver=ARM), OFF).wanted == Edit()
    found = reading("kvm-arm.mode=nested", BUILTIN, driver=ARM)
    with pytest.raises(errors.Overridden, match=r"kvm-arm\.mode=nested"):
        aim(found, OFF)
    assert aim(found, OFF, replace=True).wanted == Edit(remove=("kvm-arm.mode=nested",))
    had = Own(ON, "grub", ("kvm-arm.mode=nested",))
    assert aim(found, OFF, had).wanted == Edit()


@pytest.mark.parametrize(
    "noted",
    [
        Own(OFF, "kernel-install", ("kvm_amd.nested=0",), ("kvm-amd.nested=1",), {"cmdline": "a\n'b"}),
        Own(renewals=(("/boot/initrd.img-6.1", "update-initramfs", "-u", "-k", "6.1"),)),
        Own(nested=ON),
    ],
)
def test_what_is_noted_is_read_again(noted: Own) -> None:
    text = own.text(noted)
    assert text is not None and own.parsed(text) == noted


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"nested": "on"}', "[" * 100_000, "\x00"])
def test_a_note_that_makes_no_sense(text: str) -> None:
    with pytest.raises(errors.Malformed):
        own.parsed(text)


def test_nothing_noted_is_no_file() -> None:
    assert own.text(Own()) is own.script(Own(), "") is None
    image = "/boot/initrd.img-6.1 x"
    script = own.script(Own(renewals=((image, "update-initramfs", "-u", "-k", "6.1 x"),)), "echo\n")
    assert script is not None
    renewal = f"[ ! -e '{image}' ] || update-initramfs -u -k '6.1 x'\n"
    assert script.endswith(f"rm -f {dropin.PATH}\necho\n{renewal}")


def test_a_note_that_nobody_understands_is_neither_believed_nor_lost(tmp_path: Path) -> None:
    """What it says may be somebody else's argument, which only the script can bring back."""
    tree = Tree(tmp_path).amd().module("kvm_amd").write(own.PATH, "{}\n").write(own.SCRIPT, "echo\n")
    machine = Machine.of(tree)
    for wish in (Wish(OFF, Scope.BOOT), Wish(None, Scope.BOOT)):
        with pytest.raises(errors.BootloaderFailed, match=f"sh {own.SCRIPT}"):
            loop.run(bootplan.make(machine.host, machine.read(), wish, ""))


def test_what_is_set_is_taken_back_though_the_next_boot_does_not_show_it(tmp_path: Path) -> None:
    """Another entry is the default now, or /boot is not mounted: it is there all the same."""
    tree = Tree(tmp_path).amd().builtin("kvm").builtin("kvm_amd")
    noted = Own(OFF, "grub", ("kvm_amd.nested=0",))
    tree.write(own.PATH, own.text(noted) or "").write(grub.PATH, "nestd's\n")
    machine = Machine.of(tree)
    for loader in ("", "kernel-install"):  # what is configured since then does not matter
        made = loop.run(bootplan.make(machine.host, machine.read(), Wish(None, Scope.BOOT), loader))
        assert [str(step) for step in made] == [f"remove {grub.PATH}", f"remove {own.PATH}"]
