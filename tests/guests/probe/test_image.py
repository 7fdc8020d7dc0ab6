# SPDX-License-Identifier: LGPL-2.1-or-later
"""The initramfs of Verify, packed by the real cpio from this machine's own Python; the kernel is a tree's."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nestd.errors import VerifyFailed
from nestd.guests.probe.image import FOLDER, Image, image
from nestd.host.commands import Commands
from nestd.host.kmod import Kmod
from nestd.host.kvm import Kvm
from nestd.host.machine import Host
from tests.support import loop
from tests.support.tree import RELEASE, Tree

MODULES = f"/lib/modules/{RELEASE}"
KVM, AMD, CCP = (f"{MODULES}/kernel/{name}" for name in ("kvm.ko", "kvm-amd.ko.xz", "ccp.ko"))
TOOLS = ("sh", "mount", "insmod", "ldd", "cpio", "bsdtar", "find", "sort", "gzip", "rm", "install")


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    tree = Tree(tmp_path / "machine").write(f"/boot/vmlinuz-{RELEASE}", "a kernel")
    tree.write(
        f"{MODULES}/modules.dep", "kernel/kvm.ko:\nkernel/kvm-amd.ko.xz: kernel/kvm.ko kernel/ccp.ko\n"
    )
    for module in (KVM, AMD, CCP):
        tree.write(module, f"the code of {module}")
    tree.path("/run").mkdir()
    yield tree
    assert [path.name for path in tree.path("/run/nestd/probe").glob(".*")] == []


def host(tree: Tree, *without: str) -> Host:
    """`tree` with this machine's own programs, all but some."""
    tools = tree.path("/tools")
    tools.mkdir(exist_ok=True)
    for name in TOOLS:
        (tools / name).unlink(missing_ok=True)
        found = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
        if found and name not in without:
            (tools / name).symlink_to(found)
    commands = Commands(str(tools))
    return Host(tree.root, commands, Kmod(tree.root, commands, RELEASE), Kvm(tree.root), RELEASE)


def made(tree: Tree, extension: str = "svm") -> Image:
    return loop.run(image(host(tree), "kvm_amd", extension))


def unpacked(made: Image, folder: Path) -> Path:
    folder.mkdir()
    plain = gzip.decompress(Path(made.initrd).read_bytes())
    subprocess.run(["cpio", "-i", "-d", "--quiet"], cwd=folder, input=plain, check=True)
    return folder


def test_it_has_init_modules_and_what_they_need(tree: Tree, tmp_path: Path) -> None:
    os.umask(0o077)  # the daemon's
    try:
        built = made(tree)
    finally:
        os.umask(0o022)
    assert built.kernel == str(tree.path(f"/boot/vmlinuz-{RELEASE}")) and not built.lent
    assert Path(built.initrd).stat().st_mode & 0o777 == 0o644
    assert tree.path(FOLDER).stat().st_mode & 0o777 == 0o755
    inside = unpacked(built, tmp_path / "inside")
    assert (inside / "modules").read_text() == f"{CCP}\n{KVM}\n{AMD}\n"
    assert (inside / AMD[1:]).read_text() == f"the code of {AMD}"
    init = inside / "init"
    assert init.stat().st_mode & 0o111 and "inside.py svm 0.8" in init.read_text()
    assert not any(path.is_symlink() for path in inside.rglob("*"))
    for tool in ("sh", "mount", "insmod"):
        assert (inside / "bin" / tool).stat().st_mode & 0o111


@pytest.mark.parametrize("other", ["bsdtar", "cpio"])
def test_its_python_runs_there(tree: Tree, tmp_path: Path, other: str) -> None:
    """As root of its own: without a file of this machine it imports all that it needs."""
    built = loop.run(image(host(tree, other), "kvm_amd", "svm"))
    inside = unpacked(built, tmp_path / "inside")
    python = os.path.realpath(sys.executable)
    script = "import nestd.guests.probe.inside as it, os; print(it.__file__, os.path.exists('/etc'))"
    command = ["/usr/sbin/chroot", str(inside), python, "-s", "-S", "-X", "utf8", "-c", script]
    done = subprocess.run(
        command, env={"PYTHONPATH": "/"}, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout, done.stderr) == ("/nestd/guests/probe/inside.py False\n", "")
    for tool in ("/bin/mount", "/bin/insmod"):
        subprocess.run(["/usr/sbin/chroot", inside, tool, "--version"], capture_output=True, check=True)


def test_it_is_kept_until_something_changes(tree: Tree) -> None:
    first = made(tree)
    before = Path(first.initrd).stat()
    assert made(tree) == first
    assert Path(first.initrd).stat().st_mtime_ns == before.st_mtime_ns
    tree.write(AMD, "the code of another driver")
    second = made(tree)
    assert second.initrd != first.initrd
    assert made(tree, "vmx").initrd != second.initrd
    assert len(list(tree.path(FOLDER).iterdir())) == 1


def test_what_somebody_boots_stays(tree: Tree) -> None:
    first = made(tree)
    tree.write(AMD, "the code of another driver")
    second = loop.run(image(host(tree), "kvm_amd", "svm", spare=[first.initrd]))
    assert {str(path) for path in tree.path(FOLDER).iterdir()} == {first.initrd, second.initrd}
    third = made(tree, "vmx")
    assert [str(path) for path in tree.path(FOLDER).iterdir()] == [third.initrd]


def test_a_kernel_that_only_root_may_read_is_lent(tree: Tree) -> None:
    kernel = tree.path(f"/boot/vmlinuz-{RELEASE}")
    kernel.chmod(0o600)
    built = made(tree)
    assert built.lent
    assert Path(built.kernel).stat().st_mode & 0o777 == 0o644
    assert Path(built.kernel).read_text() == "a kernel"
    assert kernel.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("folder", ["/boot", "/boot/kernels"])
def test_a_kernel_in_a_closed_folder_is_lent(tree: Tree, folder: str) -> None:
    tree.write("/boot/kernels/linux", "another kernel")
    kernel = tree.path(f"/boot/vmlinuz-{RELEASE}")
    kernel.unlink()
    kernel.symlink_to("kernels/linux")
    assert made(tree).kernel == str(tree.path("/boot/kernels/linux"))
    tree.path(folder).chmod(0o700)
    built = made(tree)
    assert built.lent and Path(built.kernel).read_text() == "another kernel"
    assert Path(built.kernel).parent == tree.path(FOLDER)


def test_what_a_killed_nestd_left_is_removed(tree: Tree) -> None:
    first = made(tree)
    left = [tree.path(f"{FOLDER}/kernel-0011223344556677"), tree.path(f"{FOLDER}/.8899/tree/lib/kvm.ko")]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("left")
    # While somebody boots, a kernel may be lent.
    loop.run(image(host(tree), "kvm_amd", "svm", spare=[first.initrd]))
    assert all(path.exists() for path in left)
    assert made(tree) == first
    assert [str(path) for path in tree.path(FOLDER).iterdir()] == [first.initrd]


def test_a_builtin_driver_needs_no_module(tree: Tree, tmp_path: Path) -> None:
    tree.write(f"{MODULES}/modules.dep", "").write(f"{MODULES}/modules.builtin", "kernel/kvm-amd.ko\n")
    tree.write("/sys/module/kvm_amd/parameters/nested", "1\n")
    inside = unpacked(made(tree), tmp_path / "inside")
    assert (inside / "modules").read_text() == ""


def refusal(tree: Tree, *without: str) -> str:
    with pytest.raises(VerifyFailed) as caught:
        loop.run(image(host(tree, *without), "kvm_amd", "svm"))
    return str(caught.value)


def test_what_is_missing_is_named(tree: Tree) -> None:
    assert (
        refusal(tree, "cpio", "bsdtar")
        == "The probe guest cannot be built: cpio is not installed. Install it."
    )
    assert "insmod is not installed" in refusal(tree, "insmod")
    tree.gone(AMD)
    assert f"not in {MODULES} ({AMD} is missing): the kernel was upgraded" in refusal(tree)
    tree.write(f"{MODULES}/modules.dep", "")
    assert f"kvm_amd of the running kernel {RELEASE} is not in {MODULES}: the kernel" in refusal(tree)


def test_no_kernel_is_said(tree: Tree) -> None:
    tree.gone(f"/boot/vmlinuz-{RELEASE}")
    assert f"looked for /boot/vmlinuz-{RELEASE} and {MODULES}/vmlinuz" in refusal(tree)
    tree.write(f"{MODULES}/vmlinuz", "a kernel")
    assert made(tree).kernel == str(tree.path(f"{MODULES}/vmlinuz"))


def test_a_tool_that_fails_leaves_nothing(tree: Tree) -> None:
    broken = host(tree, "gzip")
    gzip_tool = tree.path("/tools/gzip")
    gzip_tool.write_text("#!/bin/sh\necho No space left >&2; exit 1\n")
    gzip_tool.chmod(0o755)
    with pytest.raises(VerifyFailed, match="cannot be built: gzip: No space left"):
        loop.run(image(broken, "kvm_amd", "svm"))
    assert list(tree.path(FOLDER).iterdir()) == []


def test_a_kernel_that_cannot_be_lent_leaves_nothing(tree: Tree) -> None:
    tree.path(f"/boot/vmlinuz-{RELEASE}").chmod(0o600)
    broken = host(tree)
    tool = tree.path("/tools/install")
    tool.unlink()
    tool.write_text('#!/bin/sh\nfor last; do :; done\necho half > "$last"; echo No space left >&2; exit 1\n')
    tool.chmod(0o755)
    with pytest.raises(VerifyFailed, match="cannot be built: install: No space left"):
        loop.run(image(broken, "kvm_amd", "svm"))
    assert [path.name for path in tree.path(FOLDER).glob("kernel-*")] == []
