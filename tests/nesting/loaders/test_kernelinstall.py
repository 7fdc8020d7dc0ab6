# SPDX-License-Identifier: LGPL-2.1-or-later
"""systemd-boot's entries and /etc/kernel/cmdline: edited, and taken back, whoever was there meanwhile."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

import pytest

from nestd import errors
from nestd.nesting.loaders.entries import SHIPPED, TEMPLATE
from nestd.nesting.loaders.probe import Fit
from nestd.nesting.own import Own
from nestd.nesting.steps import Run, WriteFile
from nestd.text.arguments import Edit, has
from tests.host.test_bootloader import uki
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
from tests.nesting.loaders.installed import FOLDER, LOADER, OLD, entry, install, installed_machine, options
from tests.nesting.machines import Machine
from tests.support.fakeloaders import MACHINE_ID, NEW
from tests.support.loop import run

__all__ = ["installed_machine"]


def test_there_and_back(machine: Machine) -> None:
    before = state(machine)
    own = move(machine, LOADER, Own(), Edit((ON,)))
    for release in OLD, NEW:
        line = options(machine, entry(release))
        assert line == f"root=/dev/vda1 ro quiet systemd.machine_id={MACHINE_ID} {ON}"
    assert machine.tree.read(TEMPLATE) == f"root=/dev/vda1 ro quiet {ON}\n"
    assert has(command_line(machine), ON)
    assert (own.loader, own.added, own.removed) == ("kernel-install", (ON,), ())
    own = move(machine, LOADER, own, Edit((OFF,)))
    assert has(command_line(machine), OFF) and not has(command_line(machine), ON)
    machine.tree.write("/proc/cmdline", command_line(machine) + "\n")  # the reboot
    assert move(machine, LOADER, own, NOTHING) == Own()
    assert state(machine) == before


def test_the_steps(machine: Machine) -> None:
    (first, *others), _ = steps(machine, LOADER, Own(), Edit((ON,)))
    assert first == WriteFile(TEMPLATE, f"root=/dev/vda1 ro quiet {ON}\n", None)
    assert [step.keeps for step in others if isinstance(step, Run)] == [(entry(OLD),), (entry(NEW),)]
    line = f"root=/dev/vda1 ro quiet systemd.machine_id={MACHINE_ID} {ON}"
    assert [str(step) for step in others] == [f"write {entry(one)}: options    {line}" for one in (OLD, NEW)]
    # systemd would take it for the name of a variable
    assert not any("${" in word or "$$" in word for step in others for word in step.argv)  # type: ignore[union-attr]


def test_a_power_cut_leaves_whole_entries(machine: Machine) -> None:
    before = state(machine)
    made, own = steps(machine, LOADER, Own(), Edit((ON,)))
    carry_out(machine, made[:2])
    again, after = steps(machine, LOADER, own, Edit((ON,)))
    assert [step.keeps for step in again if isinstance(step, Run)] == [(entry(NEW),)] and len(again) == 1
    move(machine, LOADER, after, NOTHING)
    assert state(machine) == before


@pytest.mark.parametrize("failing", ["cp", "sed", "sync", "mv"])
def test_an_edit_that_fails_leaves_nothing(machine: Machine, failing: str) -> None:
    made, _ = steps(machine, LOADER, Own(), Edit((ON,)))
    before = state(machine)
    edit = next(step for step in made if isinstance(step, Run))
    tool = machine.tools.folder / failing
    tool.unlink()
    tool.write_text("#!/bin/sh\necho half\necho no space left >&2\nexit 1\n")
    tool.chmod(0o755)
    done = run(machine.host.commands.run(*edit.argv))
    assert done.code != 0 and "no space left" in done.err
    assert state(machine) == before


@pytest.mark.parametrize(
    "text",
    ["root=1  ro\t quiet \n", "root=1", "# why\n\nroot=1 quiet\n\n", "root=1\nquiet\n", f"root=1 {OFF}\n"],
)
@pytest.mark.parametrize("path", [TEMPLATE, SHIPPED])
@pytest.mark.parametrize("wanted", [Edit((ON,)), Edit((ON,), (OFF,))])
def test_a_text_that_is_there(machine: Machine, text: str, path: str, wanted: Edit) -> None:
    machine.tree.write(path, text)
    install(machine, NEW)
    before = state(machine)
    own = move(machine, LOADER, Own(), wanted)
    written = machine.tree.read(TEMPLATE)
    assert has(written.replace("\n", " "), ON) and has(written.replace("\n", " "), OFF) == (
        OFF in text and not wanted.remove
    )
    assert not any(row.startswith("#") and ON in row for row in written.split("\n"))
    # what is installed from now on is like what is there
    install(machine, "6.13")
    assert has(options(machine, entry("6.13")), ON)
    machine.tree.gone(entry("6.13")).gone(f"/efi/{MACHINE_ID}/6.13")
    for name in "vmlinuz-6.13", "initrd.img-6.13":
        machine.tree.gone(f"/boot/{name}")
    assert move(machine, LOADER, own, NOTHING) == Own()
    assert state(machine) == before


def test_a_kernel_that_came_later(machine: Machine) -> None:
    machine.tree.write(TEMPLATE, f"root=1 {OFF} ro\n")
    own = move(machine, LOADER, Own(), Edit((ON,), (OFF,)))
    install(machine, "6.13")
    assert options(machine, entry("6.13")).split()[:3] == ["root=1", "ro", ON]
    move(machine, LOADER, own, NOTHING)
    line = options(machine, entry("6.13"))
    assert has(line, OFF) and not has(line, ON)
    assert not has(options(machine, entry(OLD)), OFF)


def test_a_word_that_was_there_stays(machine: Machine) -> None:
    machine.tree.write(TEMPLATE, f"root=1 {ON}\n")
    before = state(machine)
    own = move(machine, LOADER, Own(), Edit((ON,)))
    assert machine.tree.read(TEMPLATE) == f"root=1 {ON}\n"
    install(machine, "6.13")
    machine.tree.write(TEMPLATE, f"root=1 {ON} mine\n")
    move(machine, LOADER, own, NOTHING)
    assert machine.tree.read(TEMPLATE) == f"root=1 {ON} mine\n"
    assert has(options(machine, entry("6.13")), ON)
    assert {
        path: text for path, text in state(machine).items() if path == entry(OLD)
    }.items() <= before.items()


def test_edited_meanwhile(machine: Machine) -> None:
    own = move(machine, LOADER, Own(), Edit((ON,), ("quiet",)))
    machine.tree.write(TEMPLATE, machine.tree.read(TEMPLATE).replace(" ro ", " rw  debug "))
    machine.tree.write(entry(OLD), machine.tree.read(entry(OLD)).replace(" ro ", " rw  debug "))
    machine.tree.write(entry(NEW), "# mine\n" + machine.tree.read(entry(NEW)))
    move(machine, LOADER, own, NOTHING)
    assert machine.tree.read(TEMPLATE) == "root=/dev/vda1 rw  debug quiet\n"
    assert options(machine, entry(OLD)) == f"root=/dev/vda1 rw  debug systemd.machine_id={MACHINE_ID} quiet"
    assert options(machine, entry(NEW)) == f"root=/dev/vda1 ro quiet systemd.machine_id={MACHINE_ID}"
    assert machine.tree.read(entry(NEW)).startswith("# mine\n")


def test_counted_and_blessed(machine: Machine) -> None:
    machine.tree.write("/etc/kernel/tries", "3\n")
    install(machine, "6.13")
    counted = machine.tree.path(f"{FOLDER}/{MACHINE_ID}-6.13+3.conf")
    before = counted.read_text()
    own = move(machine, LOADER, Own(), Edit((ON,)))
    assert ON in counted.read_text()
    blessed = counted.rename(machine.tree.path(entry("6.13")))  # systemd-bless-boot
    move(machine, LOADER, own, NOTHING)
    assert blessed.read_text() == before


def test_others_entries_are_theirs(machine: Machine) -> None:
    other = "fedcba9876543210fedcba9876543210"
    texts = {
        f"{FOLDER}/{other}-{OLD}.conf": f"linux /{other}/{OLD}/linux\noptions root=2\n",
        f"{FOLDER}/mine.conf": "linux /vmlinuz\noptions root=2\n",
        f"{FOLDER}/{MACHINE_ID}-two.conf": f"linux /{MACHINE_ID}/two/linux\noptions a\noptions b\n",
        f"{FOLDER}/windows.conf": "efi /EFI/Microsoft/bootmgfw.efi\n",
    }
    for path, text in texts.items():
        machine.tree.write(path, text)
    own = move(machine, LOADER, Own(), Edit((ON,)))
    assert {path: machine.tree.read(path) for path in texts} == texts
    run_script(machine, LOADER, own)
    assert {path: machine.tree.read(path) for path in texts} == texts


def test_an_entry_token(machine: Machine) -> None:
    machine.tree.write("/etc/kernel/entry-token", "debian\n")
    install(machine, NEW)
    before = state(machine)
    own = move(machine, LOADER, Own(), Edit((ON,)))
    assert options(machine, entry(NEW, "debian")) == f"root=/dev/vda1 ro quiet {ON}"
    move(machine, LOADER, own, NOTHING)
    assert state(machine) == before


def test_no_text(machine: Machine) -> None:
    path = machine.tree.path(entry(OLD))
    path.write_bytes(path.read_bytes().replace(b"quiet", b"qui\xe9t"))
    with pytest.raises(errors.BootloaderUnknown, match=f"options in {entry(OLD)} are no UTF-8"):
        steps(machine, LOADER, Own(), Edit((ON,)))


def test_a_boot_partition_that_is_not_mounted(machine: Machine) -> None:
    own = move(machine, LOADER, Own(), Edit((ON,)))
    machine.tree.path("/efi").rename(machine.tree.path("/away"))
    for wanted in NOTHING, Edit((OFF,)):
        with pytest.raises(
            errors.BootloaderFailed, match=rf"\({entry(OLD)}, {entry(NEW)}\). Nothing was changed"
        ):
            steps(machine, LOADER, own, wanted)


def test_nothing_to_seed_from(machine: Machine) -> None:
    machine.tree.write(f"{FOLDER}/mine.conf", "linux /vmlinuz\noptions root=2\n")
    machine.tree.write("/efi/loader/loader.conf", "default mine.conf\n")
    with pytest.raises(
        errors.BootloaderUnknown, match="/etc/kernel/cmdline is missing, and what is booted next"
    ):
        steps(machine, LOADER, Own(), Edit((ON,)))


def test_it_fits(machine: Machine) -> None:
    assert probe(machine, LOADER) == (Fit.FITS, f"systemd-boot boots {entry(NEW)}, which kernel-install made")


@pytest.mark.parametrize(
    ("change", "fit", "why"),
    [
        (lambda it: it.tools.without("kernel-install"), Fit.NOT, "kernel-install is not installed"),
        (lambda it: it.tree.write("/run/ostree-booted", ""), Fit.NOT, "/run/ostree-booted is there"),
        (
            lambda it: uki(it.tree.gone("/efi/loader/entries"), "mine.efi", "root=1"),
            Fit.NOT,
            "what is booted next is the unified kernel image /efi/EFI/Linux/mine.efi",
        ),
        (lambda it: it.tree.gone("/efi"), Fit.NOT, "no entry is found"),
        (lambda it: it.tree.write("/efi/loader/loader.conf", "default @saved-x\n"), Fit.UNSURE, "@saved-x"),
        (lambda it: it.tree.write("/etc/machine-id", "x\n"), Fit.NOT, f"{entry(NEW)} is none of the entries"),
    ],
)
def test_it_does_not_fit(machine: Machine, change: Callable[[Machine], object], fit: Fit, why: str) -> None:
    change(machine)
    found = probe(machine, LOADER)
    assert found.fit is fit and why in found.why


@pytest.mark.parametrize("text", ["root=1  ro\t quiet \n", "root=1\nro\n", " root=1"])
def test_the_fake_does_as_systemds(machine: Machine, text: str) -> None:
    """90-loaderentry.install itself, on the same configuration."""
    top = machine.tree.top
    machine.tree.write(TEMPLATE, text)
    install(machine, NEW)
    ours = machine.tree.read(entry(NEW)).split("\n")
    machine.tree.write("/etc/kernel/install.conf", "layout=bls\n")
    environment = {
        **os.environ,
        "KERNEL_INSTALL_CONF_ROOT": f"{top}/etc/kernel",
        "KERNEL_INSTALL_PLUGINS": "/usr/lib/kernel/install.d/90-loaderentry.install",
        "BOOT_ROOT": f"{top}/efi",
        "MACHINE_ID": MACHINE_ID,
    }
    images = (f"{top}/boot/vmlinuz-{NEW}", f"{top}/boot/initrd.img-{NEW}")
    argv = ["/usr/bin/kernel-install", "add", NEW, *images]
    subprocess.run(argv, env=environment, check=True, capture_output=True)
    theirs = machine.tree.read(entry(NEW)).replace(f"{top}/efi", "").split("\n")
    system = ("title ", "sort-key ", "#")  # of this machine's os-release
    assert [row for row in theirs if not row.startswith(system)] == [
        row for row in ours if not row.startswith(system)
    ]
