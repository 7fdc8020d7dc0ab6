# SPDX-License-Identifier: LGPL-2.1-or-later
"""GRUB's drop-in, with a small update-grub."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from nestd import errors
from nestd.nesting.loaders import grub
from nestd.nesting.loaders.probe import Fit
from nestd.nesting.own import Own
from nestd.nesting.steps import Run, WriteFile
from nestd.text.arguments import Edit, has
from tests.nesting.loaders.carried import (
    NOTHING,
    OFF,
    ON,
    carry_out,
    command_line,
    move,
    probe,
    run_script,
    state,
    steps,
)
from tests.nesting.loaders.grubbed import DEFAULTS, LOADER, grub_machine, made
from tests.nesting.machines import Machine
from tests.support import fakeloaders

__all__ = ["grub_machine"]


def test_there_and_back(machine: Machine) -> None:
    before = state(machine)
    own = move(machine, LOADER, Own(), Edit((ON,)))
    assert command_line(machine).split() == ["root=/dev/vda1", "ro", ON, "quiet"]
    assert (own.loader, own.added, own.removed) == ("grub", (ON,), ())
    assert machine.tree.read(grub.PATH).endswith(f'\nGRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX {ON}"\n')
    # the recovery entries, too
    rows = [row for row in machine.tree.read(grub.MADE).split("\n") if row.startswith("\tlinux")]
    assert len(rows) == 4 and all(ON in row for row in rows)
    own = move(machine, LOADER, own, Edit((OFF,)))
    assert has(command_line(machine), OFF) and not has(command_line(machine), ON)
    assert move(machine, LOADER, own, NOTHING) == Own()
    assert state(machine) == before


def test_the_steps(machine: Machine) -> None:
    (first, second), own = steps(machine, LOADER, Own(), Edit((ON,)))
    assert isinstance(first, WriteFile) and (first.path, first.before) == (grub.PATH, None)
    assert isinstance(second, Run) and "update-grub -o" in second.argv[2]
    assert second == Run(second.argv, keeps=("/boot/grub/grub.cfg",), words="run update-grub")
    assert state(machine).keys() == state(made(machine)).keys()
    carry_out(machine, (first,))  # nestd was killed before update-grub ran
    assert steps(machine, LOADER, own, Edit((ON,))) == ((second,), own)


def test_the_script(machine: Machine) -> None:
    before = state(machine)
    own = move(machine, LOADER, Own(), Edit((ON,), ("quiet",)))
    assert state(machine) != before
    run_script(machine, LOADER, own)
    assert state(machine) == before
    assert LOADER.script(Own()) == ""


@pytest.mark.parametrize("variable", ["GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT"])
@pytest.mark.parametrize("path", ["/etc/default/grub", "/etc/default/grub.d/50-cloud.cfg"])
def test_somebody_elses_goes_and_comes_back(machine: Machine, variable: str, path: str) -> None:
    text = machine.tree.root.read(path) or ""
    machine.tree.write(path, f"{text}{variable}=\"a  kvm-amd.nested=0 'x y' b \"\n")
    before = state(made(machine))
    own = move(machine, LOADER, Own(), Edit((ON,), ("kvm-amd.nested=0",)))
    line = machine.tree.read(grub.MADE)
    assert "nested=0" not in line and "a  'x y' b " in line and ON in line
    assert own.removed == ("kvm-amd.nested=0",)
    assert move(machine, LOADER, own, NOTHING) == Own()
    assert state(machine) == before


WORDS = st.sampled_from(
    [
        OFF,
        "kvm-amd.nested=0",
        "quiet",
        'x="a b"',
        f'y="a {OFF} b"',
        "z=a.b*c",
        "$n",
        "r=[a]",
        "",
        "\t",
        "kvm_amd_nested=0",
    ]
)
LINES = st.lists(WORDS, max_size=6).map(" ".join)


@settings(
    deadline=None,
    max_examples=20,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(LINES, LINES, st.none() | LINES, st.sampled_from([Edit((ON,)), Edit((ON,), (OFF,)), Edit((), (OFF,))]))
def test_any_configuration(
    machine: Machine, both: str, usual: str, dropped: str | None, wanted: Edit
) -> None:
    tree = machine.tree
    tree.write("/etc/default/grub", f"GRUB_CMDLINE_LINUX='{both}'\nGRUB_CMDLINE_LINUX_DEFAULT='{usual}'\n")
    other = "/etc/default/grub.d/50-other.cfg"
    tree.write(other, "" if dropped is None else f"GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX \"'{dropped}'\n")
    before = state(made(machine))
    text = tree.read("/etc/default/grub") + tree.read(other)
    if wanted.remove and not any(one in text.split() for one in (OFF, "kvm-amd.nested=0")):
        tree.write("/etc/default/grub", tree.read("/etc/default/grub") + f"#  {OFF}\n")
        before = state(made(machine))
    own = move(machine, LOADER, Own(), wanted)
    row = next(row for row in tree.read(grub.MADE).split("\n") if row.startswith("\tlinux"))
    assert all(has(row, word) for word in wanted.add)
    assert not any(has(row, word) for word in wanted.remove)
    # somebody edits a file in between
    tree.write(other, tree.read(other) + 'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX mine"\n')
    assert move(machine, LOADER, own, NOTHING) == Own()
    tree.write(other, tree.read(other).rpartition("GRUB_CMDLINE_LINUX=")[0])
    assert state(made(machine)) == before


def test_an_entry_copied_from_another_grub_cfg(machine: Machine) -> None:
    """With a line that looks like grub-mkconfig's own and names none of its scripts."""
    entry = "### BEGIN mine ###\nmenuentry 'mine' {\n\tlinux /boot/vmlinuz-1 root=/dev/vda1\n}\n"
    script = machine.tree.write("/etc/grub.d/06_mine", f"{fakeloaders.CUSTOM}{entry}").path(
        "/etc/grub.d/06_mine"
    )
    script.chmod(0o755)
    with pytest.raises(errors.Overridden, match=r"/etc/grub\.d/06_mine makes it without GRUB_CMDLINE_LINUX"):
        steps(made(machine), LOADER, Own(), Edit((ON,)))


def test_what_is_added_behind(machine: Machine) -> None:
    machine.tree.write("/etc/default/grub.d/zzz.cfg", 'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX mine"\n')
    move(made(machine), LOADER, Own(), Edit((ON,)))
    assert has(command_line(machine), "mine") and has(command_line(machine), ON)


@pytest.mark.parametrize("name", ["zzz.cfg", "zz_z.cfg", "ZZ-other.cfg"])
def test_a_later_file_that_forgets(machine: Machine, name: str) -> None:
    machine.tree.write(f"/etc/default/grub.d/{name}", 'GRUB_CMDLINE_LINUX="mine"\n')
    with pytest.raises(errors.Overridden, match=f"/etc/default/grub.d/{name} is read after .*zz-nestd.cfg"):
        steps(made(machine), LOADER, Own(), Edit((ON,)))


def test_a_later_file_that_says_otherwise(machine: Machine) -> None:
    machine.tree.write("/etc/default/grub.d/zzz.cfg", f'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX {OFF}"\n')
    with pytest.raises(errors.Overridden, match=r"^kvm_amd.nested=0 is in /etc/default/grub.d/zzz.cfg, so"):
        steps(made(machine), LOADER, Own(), Edit((ON,), (OFF,)))


def test_an_entry_of_somebodys_own(machine: Machine) -> None:
    tree = machine.tree
    custom = tree.path("/etc/grub.d/40_custom")
    custom.write_text(f"{fakeloaders.CUSTOM}menuentry 'mine' {{\n linux /boot/vmlinuz-1 {OFF}\n}}\n")
    # not the default: it does no harm
    move(made(machine), LOADER, Own(), Edit((ON,)))
    tree.write("/etc/default/grub", DEFAULTS.replace("=0", "=mine"))
    for wanted in Edit((ON,)), Edit((ON,), (OFF,)):
        with pytest.raises(
            errors.Overridden, match=r"grub.cfg:\d+, and /etc/grub.d/40_custom makes it without"
        ):
            steps(made(machine), LOADER, Own(), wanted)


def test_a_script_of_somebodys_own(machine: Machine) -> None:
    linux = machine.tree.path("/etc/grub.d/10_linux")
    linux.write_text(linux.read_text().replace(" ro ", f" ro {OFF} "))
    with pytest.raises(errors.Overridden, match=f"{OFF} is in /etc/grub.d/10_linux, so nestd cannot take it"):
        steps(made(machine), LOADER, Own(), Edit((ON,), (OFF,)))


def test_written_straight_into_grub_cfg(machine: Machine) -> None:
    machine.tree.write(grub.MADE, machine.tree.read(grub.MADE).replace(" ro ", f" ro {OFF} "))
    with pytest.raises(errors.Overridden, match=r"is in /boot/grub/grub.cfg:\d+ and was written straight"):
        steps(machine, LOADER, Own(), Edit((ON,), (OFF,)))


# Whom it fits.


def test_it_fits(machine: Machine) -> None:
    found = probe(machine, LOADER)
    assert found == (Fit.FITS, "grub-mkconfig reads /etc/default/grub.d, and GRUB reads /boot/grub/grub.cfg")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda it: it.tools.without("update-grub"), "update-grub is not installed"),
        (lambda it: it.tools.without("grub-mkconfig"), "grub-mkconfig is not installed"),
        (
            lambda it: fakeloaders.programs(it.tools, grub_mkconfig="#!/bin/sh\n"),
            "this system's grub-mkconfig does not read /etc/default/grub.d",
        ),
        (lambda it: it.tree.write("/run/ostree-booted", ""), "/run/ostree-booted is there"),
        (lambda it: it.tree.gone("/boot/grub/grub.cfg"), "no grub.cfg is found"),
        (
            lambda it: it.tree.write("/etc/default/grub", "GRUB_ENABLE_BLSCFG=true\n"),
            "GRUB_ENABLE_BLSCFG is true",
        ),
        (
            lambda it: it.tree.write("/boot/grub/grub.cfg", "menuentry a {\n linux /vmlinuz ro\n}\n"),
            "was not made by grub-mkconfig",
        ),
        (
            lambda it: it.tree.gone("/boot/grub/grub.cfg").write(
                "/boot/grub2/grub.cfg", "menuentry a {\n linux /vmlinuz ro\n}\n"
            ),
            "GRUB reads /boot/grub2/grub.cfg, and update-grub writes /boot/grub/grub.cfg",
        ),
    ],
)
def test_it_does_not_fit(machine: Machine, change, why: str) -> None:  # type: ignore[no-untyped-def]
    change(machine)
    found = probe(machine, LOADER)
    assert found.fit is Fit.NOT and why in found.why
