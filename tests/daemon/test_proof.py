# SPDX-License-Identifier: LGPL-2.1-or-later
"""Verify, MeasureExit and CheckCpu: the real daemon with the fake systemd and the fake QEMU."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.daemon.village import land
from tests.support import fakeqemu, systems
from tests.support.clients import LIMIT, NOBODY, Client, Variant, options
from tests.support.daemon import Daemon
from tests.support.fakeqemu import Manner
from tests.support.fakesystemd import FakeSystemd
from tests.support.polkitd import Polkitd, allow
from tests.support.privatebus import PrivateBus
from tests.support.probing import furnish
from tests.support.tools import Tools
from tests.support.tree import RELEASE, Tree

pytestmark = pytest.mark.bus

OWN = "org.nestd1.Error."
INVALID = "org.freedesktop.DBus.Error.InvalidArgs"
# An account of every Debian, with few rights.
AS = options(user="games")
EPYC = {"cpu": Variant("s", "EPYC"), "cpu-features": Variant("as", ["-x2apic"])}
REFCNT = "/sys/module/kvm_amd/refcnt"


@pytest.fixture
def tree() -> Iterator[Tree]:
    with land() as tree:
        yield tree


@pytest.fixture
def tools(tree: Tree) -> Tools:
    tools = Tools(tree)
    (tools.folder / "cat").symlink_to("/bin/cat")  # the fake journalctl's
    furnish(tree, tools)
    return tools


@pytest.fixture
def systemd(bus: PrivateBus, tree: Tree, tools: Tools) -> Iterator[None]:
    fakeqemu.install(tree.path("/usr/bin"), Manner.GOOD)
    with FakeSystemd(bus.address, tree.top, tools.folder):
        yield


@pytest.fixture
def daemon(bus: PrivateBus, tree: Tree, systemd: None) -> Iterator[Daemon]:
    with Daemon(bus, tree) as daemon:
        yield daemon
    assert not list(tree.path("/run").glob("nestd/guests/*"))
    assert not list(tree.path("/run/nestd/probe").glob("kernel-*"))


def verify(client: Client, **more: Any) -> dict[str, Any]:
    [told] = client.call("Verify", "a{sv}", [AS | more])
    return dict(told)


def units(root: Client) -> list[str]:
    how = {
        "destination": "org.freedesktop.systemd1",
        "path": "/org/freedesktop/systemd1",
        "interface": "org.freedesktop.systemd1.Manager",
    }
    [rows] = root.call("ListUnitsByPatterns", "asas", [[], ["nestd-guest-*"]], **how)
    return [row[0] for row in rows]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_works(root: Client, tree: Tree) -> None:
    root.subscribe()
    told = verify(root)
    assert (told["works"], told["level"], told["why"], told["unmeasured"]) == (True, "", "", "")
    assert told["extension"] and told["kvm-loaded"] and told["vm-created"] and told["ran"]
    assert told["flags"] == ["fpu", "svm", "npt"] and told["missing"] == []
    assert told["cpu"] == "host" and told["log"] == "kvm_amd: Nested Virtualization enabled"
    assert told["exits"] == {
        "kernel": [12000.5, 11000.0, 13000.0, 40],
        "user": [20000.0, 11000.0, 13000.0, 40],
    }
    assert 0 < told["boot-seconds"] <= told["seconds"]
    # It was nobody's guest, and nothing of it is left.
    assert "InterfacesAdded" not in root.signals_so_far()
    assert units(root) == [] and not tree.root.exists("/run/nestd/registry")
    [initrd] = tree.path("/run/nestd/probe").iterdir()
    assert initrd.name.endswith(".cpio.gz")


def test_nesting_that_is_off_is_an_answer(root: Client, tree: Tree) -> None:
    fakeqemu.install(tree.path("/usr/bin"), Manner.DROPS_THE_FLAG)
    tree.write("/sys/module/kvm_amd/parameters/nested", "0\n")
    told = verify(root, **EPYC)
    assert (told["works"], told["level"], told["extension"], told["exits"]) == (False, "L1", False, {})
    assert told["why"].startswith("L1 has no svm: with -cpu EPYC,+svm,-x2apic this machine's KVM does not")
    assert told["why"].endswith("Nesting is off here: turn it on (`nestctl enable`).")
    assert told["missing"] == ["svm"] and told["cpu"] == "EPYC,+svm,-x2apic"


def test_what_never_answers_is_given_up(root: Client, tree: Tree) -> None:
    """Its console holds what every other guest of the fake says: nothing of the probe."""
    told_by = tree.path("/usr/bin/fakeqemu.py")
    told_by.write_text(told_by.read_text().replace('"/run/nestd/probe/" in', '"/nowhere" in'))
    told = verify(root, timeout=Variant("u", 5))
    assert (told["works"], told["level"]) == (False, "L1")
    assert told["why"].endswith("5 s were over. The last that it said: hello from the guest")
    assert told["seconds"] >= 5


@pytest.mark.parametrize("missing", ["cpio", "insmod"])
def test_a_probe_that_cannot_be_made(root: Client, tools: Tools, missing: str) -> None:
    tools.without(missing)
    error = root.error("Verify", "a{sv}", [AS])
    assert error.name == OWN + "VerifyFailed"
    assert error.text == f"The probe guest cannot be built: {missing} is not installed. Install it."


def test_a_kernel_without_its_file(root: Client, tree: Tree) -> None:
    tree.gone(f"/boot/vmlinuz-{RELEASE}")
    error = root.error("Verify", "a{sv}", [AS])
    assert error.name == OWN + "VerifyFailed" and "The running kernel's file is not there" in error.text


def test_a_probe_that_does_not_start(root: Client, tree: Tree) -> None:
    fakeqemu.install(tree.path("/usr/bin"), Manner.DIES)
    tree.path(f"/boot/vmlinuz-{RELEASE}").chmod(0o600)  # it is lent, and taken back
    error = root.error("Verify", "a{sv}", [AS])
    assert error.name == OWN + "VerifyFailed"
    assert error.text.startswith("The probe guest did not start. QEMU did not start _verify-")
    assert "could not open it" in error.text
    assert units(root) == []


WRONG = {
    "unknown": options(levels=2),
    "a number too small": {"timeout": Variant("u", 4)},
    "a number too large": {"timeout": Variant("u", 601)},
    "a type": options(timeout="soon"),
    "a CPU that carries options": options(cpu="host,-svm"),
    "no flag": {"cpu-features": Variant("as", ["svm"])},
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_requests_are_refused(root: Client, what: str) -> None:
    error = root.error("Verify", "a{sv}", [WRONG[what]])
    assert error.name == INVALID and error.text.isprintable()
    assert root.error("MeasureExit", "a{sv}", [options(user="games")]).name == INVALID
    assert root.error("CheckCpu", "a{sv}", [{"timeout": Variant("u", 9)}]).name == INVALID


@pytest.mark.parametrize("member", ["Verify", "MeasureExit", "CheckCpu"])
def test_without_a_driver_there_is_nothing_to_try(
    root: Client, tree: Tree, tools: Tools, member: str
) -> None:
    tools.commands.find("rmmod")
    tree.gone("/sys/module/kvm_amd")
    error = root.error(member, "a{sv}", [{} if member == "MeasureExit" else AS])
    assert error.name == OWN + "NestingOff" and "kvm_amd is not loaded" in error.text
    tree.modules_disabled()
    error = root.error(member, "a{sv}", [{} if member == "MeasureExit" else AS])
    assert error.name == OWN + "NotSupported" and error.text.startswith("module-loading-disabled: ")


def test_what_is_in_the_way_of_nesting_refuses(root: Client, tree: Tree) -> None:
    tree.write("/.kernel/kvm-refuses", str(errno.EACCES))
    for member in ("Verify", "CheckCpu"):
        error = root.error(member, "a{sv}", [AS])
        assert error.name == OWN + "NotSupported" and "forbidden to nestd" in error.text
        assert error.text.startswith("kvm-unusable: ")
    assert units(root) == []


@pytest.mark.parametrize("member", ["Verify", "CheckCpu"])
def test_a_driver_without_nesting_has_nothing_to_try(
    bus: PrivateBus, tree: Tree, systemd: None, member: str
) -> None:
    """Its probe guest would be started without an extension to look for."""
    tree.gone("/sys/module/kvm_amd").gone("/sys/module/kvm").pvm()
    with Daemon(bus, tree), Client(bus.address) as root:
        assert (root.get("Driver"), root.get("Extension")) == ("kvm_pvm", "")
        error = root.error(member, "a{sv}", [AS])
        assert error.name == OWN + "NotSupported"
        assert error.text.startswith(
            "driver-without-nesting: the KVM driver in charge, kvm_pvm, has no switch"
        )
        # What an exit costs is measured all the same, or would be if the tree had a real KVM.
        assert root.error("MeasureExit", "a{sv}", [{}]).text.startswith("kvm-unusable: /dev/kvm cannot")


@pytest.mark.parametrize("member", ["Verify", "CheckCpu"])
def test_guests_of_other_machines_are_not_had(
    bus: PrivateBus, tree: Tree, systemd: None, member: str
) -> None:
    tree.gone("/sys/module/kvm_amd").gone("/sys/module/kvm")
    systems.s390x(tree).module("kvm", nested="1")
    with Daemon(bus, tree), Client(bus.address) as root:
        assert (root.get("Obstacle"), root.get("Nested")) == ("", "on")
        error = root.error(member, "a{sv}", [AS])
        assert error.name == OWN + "NotSupported"
        assert error.text.startswith(
            "driver-without-nesting: guests are x86 only, and what kvm gives them here"
        )


def test_a_flag_that_was_taken_away_is_nobodys_fault(root: Client, tree: Tree) -> None:
    fakeqemu.install(tree.path("/usr/bin"), Manner.DROPS_THE_FLAG)
    told = verify(root, **{"cpu-features": Variant("as", ["-svm"])})
    assert (told["works"], told["level"]) == (False, "L1")
    assert told["why"] == "L1 has no svm: cpu-features takes svm away. Leave -svm out."


def test_what_ran_works_though_it_was_not_measured(root: Client, tree: Tree) -> None:
    fake = tree.path("/usr/bin/fakeqemu.py")
    fake.write_text(fake.read_text().replace('{"user": {', '{"nothing": {'))
    told = verify(root)
    assert (told["works"], told["ran"], told["level"], told["why"]) == (True, True, "", "")
    assert told["exits"] == {}
    assert told["unmeasured"] == "L2 ran, but L1, the probe guest, ended before its exits were measured."


def test_kvm_that_cannot_be_used_is_not_measured(root: Client) -> None:
    """The tree's /dev/kvm is a file; what a real one answers, tests/vm proves."""
    error = root.error("MeasureExit", "a{sv}", [{}])
    assert error.name == OWN + "NotSupported"
    assert error.text.startswith("kvm-unusable: /dev/kvm cannot be used: Inappropriate ioctl for device")


def test_a_cpu_for_qemu_and_for_libvirt(root: Client, tree: Tree) -> None:
    [told] = root.call("CheckCpu", "a{sv}", [AS])
    assert (told["qemu"], told["nesting"], told["missing"], told["unknown"]) == ("host", True, [], [])
    assert told["libvirt"].startswith("<cpu mode='host-passthrough' check='full'>")
    [told] = root.call("CheckCpu", "a{sv}", [AS | options(cpu="EPYC-v3")])
    assert told["unknown"] == ["EPYC-v3"]
    fakeqemu.install(tree.path("/usr/bin"), Manner.DROPS_THE_FLAG)
    [told] = root.call("CheckCpu", "a{sv}", [AS])
    assert (told["qemu"], told["nesting"], told["missing"]) == ("host", False, [])
    [told] = root.call("CheckCpu", "a{sv}", [AS | EPYC])
    assert (told["qemu"], told["nesting"], told["missing"]) == ("EPYC,+svm,-x2apic", False, ["svm"])
    assert "<feature policy='disable' name='x2apic'/>" in told["libvirt"]
    assert units(root) == []
    fakeqemu.install(tree.path("/usr/bin"), Manner.DIES)
    assert root.error("CheckCpu", "a{sv}", [AS]).name == OWN + "LaunchFailed"


@pytest.mark.parametrize("member", ["Verify", "CheckCpu"])
def test_only_root_says_as_whom(bus: PrivateBus, daemon: Daemon, member: str) -> None:
    with Polkitd(bus, allow("org.nestd1.launch", uid=NOBODY)), Client(bus.address, NOBODY) as nobody:
        error = nobody.error(member, "a{sv}", [AS])
        assert error.name.endswith("AccessDenied") and "Only root" in error.text
        assert nobody.call(member, "a{sv}", [{}]) != []


def test_a_change_meanwhile_hears_whose_guest_it_is(root: Client, tree: Tree) -> None:
    tree.write(REFCNT, "2\n")
    pid = os.getpid()
    tree.process(
        pid, "qemu-system-x86", "/dev/kvm", "anon_inode:kvm-vm",
        cgroup="0::/machine.slice/nestd-guest-_verify-1a2b3c4d.service\n",
    )  # fmt: skip
    error = root.error("Disable", "a{sv}", [{}])
    assert error.name == OWN + "InUse"
    assert error.text == (
        "kvm_amd is in use by nestd's own guest, which ends by itself: qemu-system-x86 "
        f"(pid {pid} in nestd-guest-_verify-1a2b3c4d.service). Wait for their end, then try again; nothing "
        "was changed."
    )
    [told] = root.call("Disable", "a{sv}", [options(when_idle=True)])
    assert told["pending"] is True


def test_in_the_middle_of_a_change_kvm_is_left_alone(root: Client, tools: Tools) -> None:
    tools.fail("rmmod", hang=2.0)
    serial = root.send("Disable", "a{sv}", [{}])
    for member in ("Verify", "MeasureExit", "CheckCpu"):
        error = root.error(member, "a{sv}", [{} if member == "MeasureExit" else AS])
        assert error.name == OWN + "Busy" and "Wait for its end" in error.text
    root.reply(serial)


def test_a_change_that_begins_while_the_probe_is_made(root: Client, tree: Tree, tools: Tools) -> None:
    gate = tree.path("/gate")
    (tools.folder / "gzip").unlink()
    slow = tools.folder / "gzip"
    slow.write_text(f'#!/bin/sh\nwhile ! [ -e "{gate}" ]; do /bin/sleep 0.1; done\nexec /bin/gzip "$@"\n')
    slow.chmod(0o755)
    tree.path(f"/boot/vmlinuz-{RELEASE}").chmod(0o600)  # what is lent meanwhile is taken back
    verifying = root.send("Verify", "a{sv}", [AS])
    until(lambda: bool(list(tree.path("/run").glob("nestd/probe/.*/packed"))))
    tools.fail("rmmod", hang=15.0)
    changing = root.send("Disable", "a{sv}", [{}])
    until(lambda: any(call[0] == "rmmod" for call in tools.calls()))
    gate.touch()
    assert root.failure(verifying).name == OWN + "Busy"
    assert units(root) == []
    root.reply(changing)


def test_several_at_once(bus: PrivateBus, root: Client, tree: Tree) -> None:
    """One image is made at a time; who leaves takes only the own guest along."""
    serials = [root.send("Verify", "a{sv}", [AS]) for _ in range(3)]
    with Client(bus.address) as leaver:
        for _ in range(3):
            leaver.send("Verify", "a{sv}", [AS])
        assert leaver.get("Driver") == "kvm_amd"
    for serial in serials:
        assert root.reply(serial)[0]["works"] is True
    assert len(list(tree.path("/run/nestd/probe").iterdir())) == 1
    until(lambda: not units(root))


def test_many_who_measure_get_one_answer(root: Client) -> None:
    """Which is that the tree's /dev/kvm is none; the process behind it runs once."""
    serials = [root.send("MeasureExit", "a{sv}", [{}]) for _ in range(5)]
    [text] = {root.failure(serial).text for serial in serials}
    assert text == (
        "kvm-unusable: /dev/kvm cannot be used: Inappropriate ioctl for device (ENOTTY). `nestctl diagnose` "
        "tells more."
    )
