# SPDX-License-Identifier: LGPL-2.1-or-later
"""Diagnose's rows, one by one; whole machines are in test_systems.py."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nestd import tasks
from nestd.host.others import Other
from nestd.model import Check, Extension, Holder, KvmAnswer, Verdict
from nestd.nesting import checks, performance
from nestd.nesting.diagnosis import Diagnosis
from nestd.nesting.observer import Observer
from tests.nesting.machines import BARE_METAL, Machine
from tests.support import systems
from tests.support.loop import run
from tests.support.tree import AMD_FLAGS, INTEL_FLAGS, Tree

PASS, WARN, FAIL = Verdict.PASS, Verdict.WARN, Verdict.FAIL
QEMU = Holder(4711, "qemu-system-x86", "machine-web.scope", "web")
MAN_PAGE = Path(__file__).parents[2] / "data" / "nestd.8"
Build = Callable[[Tree], Tree]


def rows(tree: Tree, **evidence: Any) -> dict[str, Check]:
    """Every row of the machine, by its id, with that evidence."""
    found = checks.Evidence()._replace(**evidence)
    return {row.id: row for row in checks.checks(Machine.of(tree).read(), BARE_METAL, found)}


def amd(tree: Tree) -> Tree:
    return tree.amd().module("kvm_amd")


# The machine, what is known besides, the row's id and verdict, and words of its message.
CASES: dict[str, tuple[Build, dict[str, Any], str, Verdict, str]] = {
    "loaded": (amd, {}, "driver", PASS, "kvm_amd is loaded"),
    "not loaded": (lambda tree: tree.amd(), {}, "driver", WARN, "not loaded"),
    "locked, nesting on": (
        lambda tree: amd(tree).modules_disabled(),
        *({}, "module-loading", WARN, "before the next boot"),
    ),
    "locked, nesting off": (
        lambda tree: tree.amd().module("kvm_amd", nested="0").modules_disabled(),
        *({}, "module-loading", FAIL, "modules_disabled"),
    ),
    "a strict kernel took it": (
        amd,
        {"enforcement": "module.sig_enforce is on"},
        *("module-signature", PASS, "sig_enforce is on"),
    ),
    "a strict kernel would take it": (
        lambda tree: tree.amd(),
        {"enforcement": "module.sig_enforce is on"},
        *("module-signature", PASS, "Nothing shows that kvm_amd lacks"),
    ),
    "VirtualBox is installed": (
        amd,
        {"others": (Other("VirtualBox", "vboxdrv", 0),)},
        *("other-hypervisor", WARN, "vboxdrv"),
    ),
    "VirtualBox runs": (
        amd,
        {"others": (Other("VirtualBox", "vboxdrv", 1),)},
        *("other-hypervisor", FAIL, "VirtualBox, is running"),
    ),
    "VirtualBox runs beside KVM's guests": (
        lambda tree: tree.amd().module("kvm_amd", refcnt=2),
        {"others": (Other("VirtualBox", "vboxdrv", 1),)},
        *("other-hypervisor", WARN, "VirtualBox, is running"),
    ),
    "nobody": (amd, {}, "holders", PASS, "Nobody uses kvm_amd"),
    "a guest": (
        lambda tree: tree.amd().module("kvm_amd", refcnt=1),
        {"holders": (QEMU,)},
        *("holders", PASS, "qemu-system-x86 (pid 4711, machine web, machine-web.scope)"),
    ),
    "somebody": (
        lambda tree: tree.amd().module("kvm_amd", refcnt=3),
        *({}, "holders", WARN, "reference count 3"),
    ),
    "off as it is to be": (
        lambda tree: (
            tree.amd().module("kvm_amd", nested="0").dropin("zz-nestd.conf", "options kvm_amd nested=0\n")
        ),
        *({}, "off", PASS, "no guest can get it"),
    ),
    "to be off, and on, with a guest": (
        lambda tree: amd(tree).dropin("zz-nestd.conf", "options kvm_amd nested=0\n"),
        {"holders": (QEMU,)},
        *("off", FAIL, "These may have it: qemu-system-x86 (pid 4711"),
    ),
    "both agree on on": (amd, {}, "running", PASS, "says on, and KVM offers svm"),
    "both agree on off": (
        lambda tree: tree.intel().module("kvm_intel", nested="N"),
        *({}, "running", PASS, "says off, and KVM does not offer vmx"),
    ),
    "s390x cannot be asked": (
        lambda tree: systems.s390x(tree).module("kvm", nested="1"),
        *({}, "running", PASS, "cannot be asked"),
    ),
    "npt off": (
        lambda tree: tree.amd().module("kvm_amd", npt="N"),
        *({}, "parameter-npt", WARN, "npt=N, though this CPU has npt"),
    ),
    "npt on": (amd, {}, "parameter-npt", PASS, "npt=Y"),
    "vgif off, an int": (
        lambda tree: tree.amd(flags=f"{AMD_FLAGS} vgif").module("kvm_amd", vgif="0"),
        *({}, "parameter-vgif", WARN, "vgif=0"),
    ),
    "shadow VMCS off": (
        lambda tree: tree.intel().module("kvm_intel", enable_shadow_vmcs="N"),
        {"vmx_flags": frozenset({"shadow_vmcs"})},
        *("parameter-enable_shadow_vmcs", WARN, "VMREAD"),
    ),
    "unrestricted guest off": (
        lambda tree: tree.intel().module("kvm_intel", unrestricted_guest="N"),
        {"vmx_flags": frozenset({"unrestricted_guest"})},
        *("parameter-unrestricted_guest", WARN, "real mode"),
    ),
    "huge pages on s390x": (
        lambda tree: systems.s390x(tree).module("kvm"),
        {"hpage": "1"},
        *("hazard-hpage", WARN, "hpage=1"),
    ),
    "no huge pages on s390x": (
        lambda tree: systems.s390x(tree).module("kvm"),
        {"hpage": "0"},
        *("hazard-hpage", PASS, "may be on"),
    ),
    "an old Intel kernel": (
        lambda tree: tree.intel().module("kvm_intel"),
        {"release": "4.18.0-553.el8"},
        *("hazard-migration", WARN, "4.20"),
    ),
    "an old AMD kernel": (amd, {"release": "5.4.0"}, "hazard-migration", WARN, "5.8"),
    "a kernel of today": (amd, {"release": "6.1.0"}, "hazard-migration", PASS, "try it before"),
}


@pytest.mark.parametrize("name", CASES)
def test_rows(tmp_path: Path, name: str) -> None:
    build, evidence, identity, verdict, words = CASES[name]
    row = rows(build(Tree(tmp_path)), **evidence)[identity]
    assert row.verdict is verdict, row
    assert words in row.message
    assert bool(row.remedy) is (verdict is not PASS)


@pytest.mark.parametrize(
    ("build", "absent"),
    [
        (lambda tree: tree.amd().module("kvm_amd", vgif="0"), "parameter-vgif"),  # the CPU has none
        (lambda tree: tree.intel().module("kvm_intel"), "parameter-unrestricted_guest"),  # nor the driver
        (lambda tree: tree.amd(), "running"),
        (lambda tree: tree.amd(), "holders"),
        (lambda tree: tree.amd(), "kvm-device"),
        (amd, "off"),
        (lambda tree: tree.amd().builtin("kvm_amd"), "module-loading"),
        (lambda tree: tree.amd().module("kvm_amd", nested="0"), "hazard-migration"),
        (amd, "hazard-hpage"),
    ],
)
def test_what_makes_no_sense_is_left_out(tmp_path: Path, build: Build, absent: str) -> None:
    assert absent not in rows(build(Tree(tmp_path)))


@pytest.mark.parametrize(
    ("parameter", "offered", "verdict"),
    [("1", False, WARN), ("0", True, FAIL)],
    ids=["gives less", "gives more"],
)
def test_a_parameter_that_kvm_contradicts(
    tmp_path: Path, parameter: str, offered: bool, verdict: Verdict
) -> None:
    reading = Machine.of(Tree(tmp_path).amd().module("kvm_amd", nested=parameter)).read()
    extensions = frozenset({Extension.SVM} if offered else ())
    contradicted = reading._replace(
        kvm=KvmAnswer(12, 0, extensions), status=reading.status._replace(guest_extension=offered)
    )
    [row] = [row for row in checks.checks(contradicted, BARE_METAL, checks.Evidence()) if row.id == "running"]
    assert row.verdict is verdict
    assert "KVM's word counts" in row.message


def test_every_id_is_documented() -> None:
    ids = {case[2] for case in CASES.values()} | {"extension", "firmware", "hypervisor", "kvm-device"}
    ids |= {f"parameter-{aid.parameter}" for aids in performance._AIDS.values() for aid in aids}
    chapter = MAN_PAGE.read_text().partition(".Sh CHECKS")[2].partition(".Sh ")[0]
    lines = re.findall(r"^\.It Cm (.*)$", chapter, re.MULTILINE)
    assert ids <= {word for line in lines for word in line.split(" , ")}


def test_who_asks_meanwhile_gets_the_same_answer(tmp_path: Path) -> None:
    machine = Machine.of(amd(Tree(tmp_path)))
    told: list[tuple[Check, ...]] = []

    async def ask_often() -> None:
        observer = Observer(machine.host, BARE_METAL, lambda _, __: None)
        diagnosis = Diagnosis(machine.host, observer, [lambda: [Check("more", PASS, "More.", "")]])

        async def ask() -> None:
            told.append(await diagnosis.run())

        asking = [tasks.create_task(ask()) for _ in range(50)]
        await tasks.sleep(0)
        asking[0].cancel()  # who asked first leaves, and the others get theirs
        await tasks.wait(asking)
        await diagnosis.run()

    run(ask_often())
    assert len(told) == 49
    assert len({id(one) for one in told}) == 1
    assert told[0][-1].id == "more"
    assert machine.tools.calls() == [["systemd-detect-virt"]] * 2


def test_a_machine_that_cannot_be_read_is_an_error_for_all_who_asked(tmp_path: Path) -> None:
    machine = Machine.of(amd(Tree(tmp_path)))

    async def ask() -> None:
        observer = Observer(machine.host, BARE_METAL, lambda _, __: None)
        diagnosis = Diagnosis(machine.host, observer, ())
        machine.tree.gone("/proc/cpuinfo").path("/proc/cpuinfo").mkdir()
        for _ in range(2):
            with pytest.raises(IsADirectoryError):
                await diagnosis.run()

    run(ask())


def test_while_a_change_runs_kvm_is_not_asked(tmp_path: Path) -> None:
    machine = Machine.of(amd(Tree(tmp_path)))

    async def ask() -> None:
        observer = Observer(machine.host, BARE_METAL, lambda _, __: None)
        asked = machine.kvm.asked
        with observer.held():
            await Diagnosis(machine.host, observer, ()).run()
            assert machine.kvm.asked == asked

    run(ask())


def test_flags_of_a_real_intel() -> None:
    """The names by which a real /proc/cpuinfo shows what the table of aids asks for."""
    known = {aid.flag for aid in performance._AIDS["kvm_intel"]}
    assert known - set(INTEL_FLAGS.split()) == {"shadow_vmcs", "apicv", "unrestricted_guest"}
