# SPDX-License-Identifier: LGPL-2.1-or-later
"""The next boot, solved: what wins, what keeps the driver away, and which command line counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nestd.host import bootimages
from nestd.host.initramfs import Image
from nestd.model import Check, Driver, DriverState, Nesting, Verdict
from nestd.nesting import boot, bootchecks, drivers
from tests.host.test_bootloader import entry, grub, modules
from tests.nesting.machines import Machine
from tests.support import initramfs
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


def rows(tree: Tree, image: Image | None = None, state: DriverState = LOADED) -> dict[str, Check]:
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


INSIDE = "/boot/i:/etc/modprobe.d/x.conf:1"


def image(
    *options: str, path: str = "/boot/i", doubt: str = "", modules: tuple[str, ...] = ("kvm_amd",)
) -> Image:
    """One that carries the driver, and a file of modprobe.d with these lines."""
    files = (("/etc/modprobe.d/x.conf", "".join(f"{one}\n" for one in options)),) if options else ()
    return Image(path, modules, files, doubt)


@pytest.mark.parametrize(
    ("found", "verdict", "words"),
    [
        (image(modules=()), Verdict.PASS, "does not carry kvm_amd"),
        (image(modules=(), doubt="no tool"), Verdict.WARN, "cannot be told: no tool"),
        (image(), Verdict.WARN, "it gives nesting on (/boot/i), /etc gives off"),
        (image("options kvm_amd nested=0"), Verdict.PASS, "gives it what /etc gives: nesting off"),
        (image("options kvm_amd nested=1"), Verdict.WARN, f"it gives nesting on ({INSIDE}), /etc gives off"),
        (image("blacklist kvm-amd"), Verdict.PASS, "does not load it, because it is blacklisted"),
        (image(doubt="half"), Verdict.WARN, "cannot be told: half"),
    ],
)
def test_initramfs(tree: Tree, found: Image, verdict: Verdict, words: str) -> None:
    tree.dropin("zz-nestd.conf", "options kvm_amd nested=0\n")
    row = rows(tree, found)["initramfs"]
    assert row.verdict is verdict and words in row.message
    assert "initramfs" not in rows(tree, found, BUILTIN)


@pytest.mark.parametrize(
    ("etc", "inside", "line", "nested", "source", "loses"),
    [
        ("", (), "ro", ON, "kernel default", ()),
        # /etc is not there yet when the driver is loaded
        ("options kvm_amd nested=0", (), "ro", ON, "/boot/i", (0,)),
        ("options kvm_amd nested=1", (), "ro", ON, "kernel default", ()),
        ("", ("options kvm_amd nested=0",), "ro", OFF, INSIDE, ()),
        ("options kvm_amd nested=1", ("options kvm_amd nested=0",), "ro", OFF, INSIDE, (0,)),
        ("options kvm_amd nested=0", ("options kvm_amd nested=0",), "ro", OFF, INSIDE, ()),
        ("install kvm_amd /bin/false", ("options kvm_amd nested=1",), "ro", ON, INSIDE, (0,)),
        ("", ("install kvm_amd /bin/false",), "ro", OFF, INSIDE, ()),
        ("", ("options kvm_amd nested=0",), "kvm_amd.nested=1", ON, "kernel command line", (1,)),
        ("options kvm_amd nested=0", (), "kvm_amd.nested=1", ON, "kernel command line", (0,)),
        # what udev leaves alone there is loaded later, with what /etc says
        ("options kvm_amd nested=0", ("blacklist kvm_amd",), "ro", OFF, "/etc/modprobe.d/a.conf:1", ()),
        ("options kvm_amd nested=0", (), "modprobe.blacklist=kvm_amd", OFF, "/etc/modprobe.d/a.conf:1", ()),
        ("", (), "module_blacklist=kvm_amd", OFF, "kernel command line", ()),
    ],
)
def test_the_initramfs_decides(
    tree: Tree,
    etc: str,
    inside: tuple[str, ...],
    line: str,
    nested: Nesting,
    source: str,
    loses: tuple[int, ...],
) -> None:
    tree.dropin("a.conf", f"{etc}\n").cmdline(line)
    configuration = boot.Configuration.read(tree.root)._replace(image=image(*inside))
    overridden = tuple(("/etc/modprobe.d/a.conf:1", INSIDE)[number] for number in loses)
    assert boot.solve(configuration, AMD, LOADED) == (nested, source, overridden)
    # Neither counts an image of another driver, nor one for a driver that is built in.
    other = configuration._replace(image=image(*inside, modules=("kvm_intel",)))
    assert boot.solve(other, AMD, LOADED) == boot.solve(other.renewed(), AMD, LOADED)
    assert boot.solve(configuration, AMD, BUILTIN) == boot.solve(other, AMD, BUILTIN)


def test_files_of_an_image_hide_each_other(tree: Tree) -> None:
    found = Image(
        "/boot/i",
        ("kvm_amd",),
        (
            ("/usr/lib/modprobe.d/b.conf", "options kvm_amd nested=1\n"),
            ("/etc/modprobe.d/b.conf", "# nothing of kvm\n"),
            ("/lib/modprobe.d/a.conf", "options kvm_amd nested=0\n"),
        ),
    )
    configuration = boot.Configuration.read(tree.root)._replace(image=found)
    assert boot.solve(configuration, AMD, LOADED) == (OFF, "/boot/i:/lib/modprobe.d/a.conf:1", ())


def test_which_initramfs(tree: Tree) -> None:
    def found() -> str:
        configuration = boot.Configuration.read(tree.root)
        return bootimages.of_next_boot(tree.root, configuration.next_boot, configuration.release)

    assert found() == ""
    tree.write(f"/boot/initrd.img-{RELEASE}", "")
    assert found() == f"/boot/initrd.img-{RELEASE}"
    entry(tree, "m", "ro", initrd="/m/initrd").write("/boot/m/initrd", "")
    assert found() == "/boot/m/initrd"


def test_diagnose_looks_into_it_and_then_it_counts(tree: Tree) -> None:
    tree.module("kvm_amd", nested="1").dropin("a.conf", "options kvm_amd nested=0\n")
    path = f"/boot/initrd.img-{RELEASE}"
    initramfs.image(tree, path, "dracut", {initramfs.DRIVER: ""})
    machine = replace(Machine.of(tree), host=initramfs.host(tree))
    assert machine.read().status.boot_source == "/etc/modprobe.d/a.conf:1"
    status, found = machine.diagnose()
    assert (status.nested_at_boot, status.boot_source) == (ON, path)
    assert status.overridden == ("/etc/modprobe.d/a.conf:1",)
    [row] = [row for row in found if row.id == "initramfs"]
    assert row.verdict is Verdict.WARN and "nestctl enable --scope=boot" in row.remedy


def test_diagnose_where_nobody_can_look(tree: Tree) -> None:
    machine = Machine.of(tree.write(f"/boot/initrd.img-{RELEASE}", "x").module("kvm_amd"))
    _, found = machine.diagnose()
    assert {row.id: row.verdict for row in found}["initramfs"] is Verdict.WARN
