# SPDX-License-Identifier: LGPL-2.1-or-later
"""The next boot, solved: what wins, what keeps the driver away, and which command line counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from nestd.host import initramfs
from nestd.model import Check, Driver, DriverState, Nesting, Verdict
from nestd.nesting import boot, bootchecks, drivers
from tests.host.test_bootloader import entry, grub, modules
from tests.nesting.machines import Machine
from tests.support import loop
from tests.support.tree import RELEASE, Tree

ON, OFF, UNSUPPORTED = Nesting.ON, Nesting.OFF, Nesting.UNSUPPORTED
AMD = next(driver for driver in drivers.table(RELEASE) if driver.name == "kvm_amd")
INTEL = next(driver for driver in drivers.table(RELEASE) if driver.name == "kvm_intel")
LOADED, BUILTIN = DriverState.LOADED, DriverState.BUILTIN


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path).amd()


def solve(tree: Tree, state: DriverState = LOADED, driver: Driver = AMD) -> tuple[Nesting, str]:
    setting = boot.solve(boot.Configuration.read(tree.root), driver, state)
    return setting.nested, setting.source


def rows(tree: Tree, image: initramfs.Image | None = None, state: DriverState = LOADED) -> dict[str, Check]:
    configuration = boot.Configuration.read(tree.root)
    template = tree.root.read("/etc/kernel/cmdline")
    found = bootchecks.checks(configuration, AMD, state, image, template)
    for row in found:
        assert (row.verdict is Verdict.PASS) == (row.remedy == ""), row
        assert row.message.endswith(".") and "\n" not in row.message
    return {row.id: row for row in found}


def test_nothing_said(tree: Tree) -> None:
    assert solve(tree) == (ON, "kernel default")
    found = rows(tree)
    assert list(found) == ["next-boot", "command-line", "overridden", "blacklist"]
    assert all(row.verdict is Verdict.PASS for row in found.values())


@pytest.mark.parametrize(
    ("line", "nested"),
    [
        ("module_blacklist=kvm_amd", OFF),
        ("module-blacklist=x,kvm", OFF),
        # the kernel compares names as they are, and takes the last list
        ("module_blacklist=kvm-amd", ON),
        ("module_blacklist=kvm_amd module_blacklist=x", ON),
        ("module_blacklist=kvm_intel", ON),
        ("-- module_blacklist=kvm_amd", ON),
        ("initcall_blacklist=svm_init", OFF),
        ("initcall_blacklist=a,svm_init initcall_blacklist=b", OFF),
        ("initcall_blacklist=vmx_init", ON),
        ("nomodule", OFF),
        ("nomodule=0", ON),
        ("modprobe.blacklist=kvm_amd", ON),
        ("kvm_amd.nested=0", OFF),
        ("kvm_amd.nested=Y", OFF),
        ("kvm_amd.nested", OFF),
    ],
)
def test_the_command_line_of_a_module(tree: Tree, line: str, nested: Nesting) -> None:
    tree.cmdline(line)
    assert solve(tree) == (nested, "kernel default" if nested is ON else "kernel command line")


@pytest.mark.parametrize(
    ("line", "nested"),
    [
        ("module_blacklist=kvm_amd nomodule", ON),
        ("initcall_blacklist=svm_init", OFF),
        ("kvm_amd.nested=Y", ON),
        ("kvm_amd.nested=0 kvm_amd.nested=x", OFF),
    ],
)
def test_the_command_line_of_a_builtin(tree: Tree, line: str, nested: Nesting) -> None:
    assert solve(tree.cmdline(line), BUILTIN)[0] is nested


def test_a_switch_that_shows_y_is_a_bool(tree: Tree) -> None:
    tree.module("kvm_amd", nested="Y").cmdline("kvm_amd.nested=N")
    assert solve(tree) == (OFF, "kernel command line")
    assert solve(tree.cmdline("kvm_amd.nested=Y")) == (ON, "kernel command line")
    assert solve(tree.cmdline("kvm_amd.nested=2")) == (OFF, "kernel command line")


@pytest.mark.parametrize(
    ("value", "nested"),
    [
        ("1", ON),
        ("yes", ON),
        ("on", ON),
        ("true", ON),
        ("off", OFF),
        ("n", OFF),
        ("0x1", OFF),
        ("", OFF),
        ("o", OFF),
    ],
)
def test_values_of_a_bool(tree: Tree, value: str, nested: Nesting) -> None:
    tree.dropin("a.conf", f"options kvm_intel nested={value}\n")
    assert solve(tree, driver=INTEL)[0] is nested


def test_a_refused_value_keeps_the_driver_away(tree: Tree) -> None:
    tree.dropin("a.conf", "options kvm_amd nested=Y\n").dropin("b.conf", "options kvm_amd nested=1\n")
    assert solve(tree) == (OFF, "/etc/modprobe.d/a.conf:1")
    assert "kernel refuses" in rows(tree)["next-boot"].message
    assert rows(tree)["overridden"].verdict is Verdict.WARN


@pytest.mark.parametrize(
    "command", ["/bin/false", "/usr/bin/true", ":", "exit 0", "/bin/true kvm", "/dev/null"]
)
@pytest.mark.parametrize("module", ["kvm_amd", "kvm-amd", "kvm", "kvm_*"])
def test_install_never(tree: Tree, command: str, module: str) -> None:
    tree.dropin("a.conf", f"install {module} {command}\noptions kvm_amd nested=1\n")
    assert solve(tree) == (OFF, "/etc/modprobe.d/a.conf:1")
    found = rows(tree)
    assert found["install"].verdict is Verdict.WARN and "does not come up" in found["install"].message
    assert found["next-boot"].verdict is Verdict.PASS


def test_install_of_another_module(tree: Tree) -> None:
    tree.dropin("a.conf", "install kvm_intel /bin/false\ninstall foo /bin/false\n")
    assert solve(tree) == (ON, "kernel default")


def test_the_first_install_counts(tree: Tree) -> None:
    tree.dropin("a.conf", "install kvm_amd /bin/false\n").dropin(
        "b.conf", "install kvm_amd modprobe -i kvm_amd\n"
    )
    assert solve(tree) == (OFF, "/etc/modprobe.d/a.conf:1")


def test_install_that_cannot_be_judged(tree: Tree) -> None:
    tree.dropin("a.conf", "install kvm_amd /bin/false || /usr/local/bin/load\n")
    assert solve(tree) == (ON, "kernel default")
    found = rows(tree)
    assert found["next-boot"].verdict is Verdict.WARN and "a.conf:1" in found["next-boot"].message
    assert "cannot be told" in found["install"].message


@pytest.mark.parametrize(
    ("arguments", "decides"),
    [
        ("nested=0", "/etc/modprobe.d/a.conf:1"),
        ("$CMDLINE_OPTS nested=0", "/etc/modprobe.d/a.conf:1"),
        # libkmod puts what is configured in its place, and the last wins
        ("nested=0 $CMDLINE_OPTS", "kernel command line"),
    ],
)
def test_arguments_of_an_install(tree: Tree, arguments: str, decides: str) -> None:
    tree.dropin("a.conf", f"install kvm_amd /sbin/modprobe --ignore-install kvm_amd {arguments}\n")
    assert solve(tree) == (OFF, "/etc/modprobe.d/a.conf:1")
    tree.cmdline("kvm_amd.nested=1")
    assert solve(tree) == (OFF if decides.startswith("/") else ON, decides)


@pytest.mark.parametrize(
    ("softdep", "nested"), [("pre: kvm", ON), ("post: kvm-intel", ON), ("pre: nowhere", OFF), ("kvm", OFF)]
)
def test_a_soft_dependency_switches_install_off(tree: Tree, softdep: str, nested: Nesting) -> None:
    tree.dropin("a.conf", f"install kvm_amd /bin/false\nsoftdep kvm_amd {softdep}\n")
    assert solve(tree)[0] is nested


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("blacklist kvm-amd\n", "ro", "/etc/modprobe.d/a.conf:1 says blacklist kvm_amd: udev does not load"),
        ("", "modprobe.blacklist=x,kvm_amd", "kernel command line says blacklist kvm_amd"),
        ("alias kvm_amd off\n", "ro", "modprobe kvm_amd does not find it"),
        ("alias cpu:type:x86* off\n", "ro", "udev does not load"),
        ("blacklist kvm\n", "modprobe.blacklist=kvm-amd", ""),
    ],
)
def test_blacklist(tree: Tree, text: str, line: str, words: str) -> None:
    row = rows(tree.dropin("a.conf", text).cmdline(line))["blacklist"]
    assert (row.verdict is Verdict.WARN) == bool(words)
    assert words in row.message


def test_the_boot_loader_says_the_next_line(tree: Tree) -> None:
    modules(grub(tree), "6.12.0-2-amd64")
    tree.write("/lib/modules/6.12.0-2-amd64/modules.dep", "kernel/arch/x86/kvm/kvm-amd.ko:\n")
    assert solve(tree) == (OFF, "/boot/grub/grub.cfg:121")
    found = rows(tree)
    assert found["command-line"].verdict is Verdict.WARN
    assert (
        "says kvm_amd.nested=0, the running kernel was given nothing of the kind"
        in found["command-line"].message
    )
    assert "another kernel than the one that runs: 6.12.0-2-amd64" in found["next-boot"].message
    tree.cmdline("ro kvm-amd.nested=0")
    assert rows(tree)["command-line"].verdict is Verdict.PASS


def test_what_runs_no_longer_counts(tree: Tree) -> None:
    entry(tree.cmdline("kvm_amd.nested=0"), "m-1", "ro")
    assert solve(tree) == (ON, "kernel default")
    assert "differs" in rows(tree)["command-line"].message


def test_a_boot_loader_that_cannot_be_read(tree: Tree) -> None:
    tree.cmdline("kvm_amd.nested=0").write("/boot/grub/grub.cfg", "menuentry x {\n")
    assert solve(tree) == (OFF, "kernel command line")
    found = rows(tree)
    assert found["next-boot"].verdict is found["command-line"].verdict is Verdict.WARN


@pytest.mark.parametrize(
    ("release", "index", "nested"),
    [
        ("4.19.0", "dep", OFF),
        ("4.20.0", "dep", ON),
        ("6.12.0", "builtin", ON),
        ("6.12.0", "none", UNSUPPORTED),
    ],
)
def test_the_next_kernel_is_another(tree: Tree, release: str, index: str, nested: Nesting) -> None:
    entry(tree, "m", "ro", version=release)
    tree.write(
        f"/lib/modules/{release}/modules.{index}",
        "kernel/arch/x86/kvm/kvm-intel.ko:\n".rstrip(":\n") + (":\n" if index == "dep" else "\n"),
    )
    tree.dropin("a.conf", "options kvm_intel nested=0\n" if index == "builtin" else "")
    assert solve(tree, driver=INTEL)[0] is nested


def test_kernel_cmdline_that_is_not_in_the_entries_yet(tree: Tree) -> None:
    entry(tree, "m", "ro").write("/etc/kernel/cmdline", "ro kvm_amd.nested=0\n")
    row = rows(tree)["command-line"]
    assert row.verdict is Verdict.WARN and "/etc/kernel/cmdline" in row.message


@pytest.mark.parametrize(
    ("image", "verdict", "words"),
    [
        (initramfs.Image("/boot/i"), Verdict.PASS, "does not carry kvm_amd"),
        (initramfs.Image("/boot/i", doubt="no tool"), Verdict.WARN, "cannot be told: no tool"),
        (
            initramfs.Image("/boot/i", ("kvm_amd",)),
            Verdict.WARN,
            "it gives nesting on (kernel default in it)",
        ),
        (
            initramfs.Image(
                "/boot/i", ("kvm_amd",), (("/etc/modprobe.d/x.conf", "options kvm_amd nested=0\n"),)
            ),
            Verdict.PASS,
            "gives it what /etc gives: nesting off",
        ),
        (initramfs.Image("/boot/i", ("kvm_amd",), (), "half"), Verdict.WARN, "cannot be told: half"),
    ],
)
def test_initramfs(tree: Tree, image: initramfs.Image, verdict: Verdict, words: str) -> None:
    tree.dropin("zz-nestd.conf", "options kvm_amd nested=0\n")
    row = rows(tree, image)["initramfs"]
    assert row.verdict is verdict and words in row.message
    assert "initramfs" not in rows(tree, image, BUILTIN)


def test_which_initramfs(tree: Tree) -> None:
    assert bootchecks.image_of(tree.root, boot.Configuration.read(tree.root)) == ""
    tree.write(f"/boot/initrd.img-{RELEASE}", "")
    assert bootchecks.image_of(tree.root, boot.Configuration.read(tree.root)) == f"/boot/initrd.img-{RELEASE}"
    entry(tree, "m", "ro", initrd="/m/initrd").write("/boot/m/initrd", "")
    assert bootchecks.image_of(tree.root, boot.Configuration.read(tree.root)) == "/boot/m/initrd"


def test_look_asks_the_tools(tree: Tree) -> None:
    machine = Machine.of(tree.write(f"/boot/initrd.img-{RELEASE}", "x").module("kvm_amd"))
    reading = machine.read()
    found = loop.run(bootchecks.look(machine.host, reading.configuration, reading.driver, LOADED))
    assert {row.id: row.verdict for row in found}["initramfs"] is Verdict.WARN
    assert loop.run(bootchecks.look(machine.host, reading.configuration, None, LOADED)) == ()
