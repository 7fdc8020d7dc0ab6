# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which initramfs is made anew, by whom, and what is then in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from nestd import errors
from nestd.host.initramfs import Image
from nestd.host.machine import Host
from nestd.model import BootSetting, Driver, DriverState, Nesting
from nestd.nesting import boot, drivers, dropin, images
from nestd.nesting.boot import Configuration
from nestd.nesting.steps import Run
from tests.host.test_bootloader import entry
from tests.support import initramfs, loop
from tests.support.images import unified
from tests.support.initramfs import DRIVER, image
from tests.support.tree import RELEASE, Tree

AMD = next(driver for driver in drivers.table(RELEASE) if driver.name == "kvm_amd")
IMAGE = f"/boot/initrd.img-{RELEASE}"
OFF, ON = "options kvm_amd nested=0\n", "options kvm_amd nested=1\n"
ZZ = "etc/modprobe.d/zz-nestd.conf"
LINUX = f"/lib/modules/{RELEASE}"
PRESET = """ALL_kver="/boot/vmlinuz-linux"
PRESETS=('default' 'fallback')
default_image="/boot/initramfs-linux.img"
fallback_image="/boot/initramfs-linux-fallback.img"
#debug_image="/boot/initramfs-debug.img"
"""


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path).amd()


def after(tree: Tree, content: str | None = ON) -> Configuration:
    """The configuration as it will be: with nestd's drop-in saying `content`."""
    return Configuration.read(tree.root).renewed().with_dropin(content)


def renewals(host: Host, configuration: Configuration, driver: Driver = AMD) -> tuple[Run, ...]:
    return loop.run(images.renewals(host, configuration, driver, DriverState.LOADED))


def carry_out(host: Host, runs: tuple[Run, ...]) -> None:
    """Run them, each twice, as after a crash."""
    for run in (*runs, *runs):
        done = loop.run(host.commands.run(*run.argv))
        assert done.code == 0, (run, done.err)


def learn(host: Host) -> Image | None:
    return loop.run(images.learn(host, Configuration.read(host.root), AMD))


def status(host: Host) -> BootSetting:
    return boot.solve(Configuration.read(host.root), AMD, DriverState.LOADED)


def dracut(tree: Tree, text: str = 'hostonly="yes"\n') -> Tree:
    return tree.write("/etc/dracut.conf.d/01-dist.conf", text)


@pytest.mark.parametrize("maker", ["initramfs-tools", "dracut", "mkinitcpio"])
def test_a_stale_option_is_healed(tree: Tree, maker: str) -> None:
    path = "/boot/initramfs-linux.img" if maker == "mkinitcpio" else IMAGE
    dracut(tree).write("/etc/mkinitcpio.conf", "HOOKS=(base udev modconf block)\n")
    entry(tree, "m", "ro", version=RELEASE, linux="/vmlinuz", initrd=path)
    if maker == "mkinitcpio":
        tree.write("/etc/mkinitcpio.d/linux.preset", PRESET)
        image(tree, "/boot/initramfs-linux-fallback.img", maker, {})
    image(tree, path, maker, {DRIVER: "", ZZ: OFF})
    host = initramfs.host(tree)
    tree.dropin("zz-nestd.conf", OFF)
    runs = renewals(host, after(tree))
    assert len(runs) == 1 and path in runs[0].keeps
    tree.dropin("zz-nestd.conf", ON)
    # What was seen before is the truth until then.
    assert status(host) == (Nesting.OFF, f"{path}:/{ZZ}:1", ("/etc/modprobe.d/zz-nestd.conf:1",))
    carry_out(host, runs)
    assert status(host) == (Nesting.ON, "/etc/modprobe.d/zz-nestd.conf:1", ())
    assert learn(host) == Image(path, ("kvm", "kvm_amd"), ((f"/{ZZ}", ON),), "", maker)
    assert status(host) == (Nesting.ON, f"{path}:/{ZZ}:1", ())
    assert renewals(host, after(tree)) == ()


@pytest.mark.parametrize(
    ("inside", "content", "renewed"),
    [
        ({}, ON, False),
        ({"etc/modprobe.d/other.conf": "options kvm_amd npt=1\n"}, ON, False),
        ({DRIVER: ""}, ON, True),
        ({DRIVER: "", ZZ: ON}, ON, False),
        ({DRIVER: "", ZZ: f"# other words\n{ON}"}, ON, False),
        ({DRIVER: "", ZZ: ON}, None, True),
        ({DRIVER: ""}, None, False),
        ({ZZ: OFF}, ON, True),
        ({ZZ: ON}, ON, False),
        ({ZZ: ON}, None, True),
        ({"etc/modprobe.d/old.conf": OFF}, ON, True),
        ({DRIVER: "", "etc/modprobe.d/old.conf": OFF, ZZ: ON}, ON, True),
    ],
)
def test_when_and_only_when(tree: Tree, inside: dict[str, str], content: str | None, renewed: bool) -> None:
    image(tree, IMAGE, "initramfs-tools", inside)
    expected = (Run(("update-initramfs", "-u", "-k", RELEASE), keeps=(IMAGE,)),) if renewed else ()
    assert renewals(initramfs.host(tree), after(tree, content)) == expected


def test_every_installed_kernel(tree: Tree) -> None:
    older = "5.10.0-1-amd64"
    tree.write(f"/lib/modules/{older}/modules.dep", "")
    paths = (
        IMAGE,
        f"/boot/initrd.img-{older}",
        "/boot/initramfs-6.1kdump.img",
        f"{IMAGE}.bak",
        "/boot/initrd.img-9",
    )
    for path in (*paths, "/boot/initramfs-0-rescue-00112233445566778899aabbccddeeff.img"):
        image(tree, path, "initramfs-tools", {ZZ: OFF})
    runs = renewals(initramfs.host(tree), after(tree))
    assert [run.argv[-1] for run in runs] == [RELEASE, older]


def test_dracut_does_not_write_over_the_image(tree: Tree) -> None:
    """A power cut while it writes would leave nothing to boot."""
    image(dracut(tree), IMAGE, "dracut", {DRIVER: ""})
    host = initramfs.host(tree)
    [run] = renewals(host, after(tree))
    assert run.argv[:2] == ("sh", "-c") and run.keeps == (IMAGE,)
    assert f"dracut -f {IMAGE}.nestd-new {RELEASE} &&" in run.argv[2] and "$" not in run.argv[2]
    before = tree.path(IMAGE).read_bytes()
    tree.gone(LINUX)
    assert loop.run(host.commands.run(*run.argv)).code == 1
    assert tree.path(IMAGE).read_bytes() == before
    assert [path.name for path in tree.path("/boot").iterdir()] == [Path(IMAGE).name]


@pytest.mark.parametrize(
    ("settings", "version", "copies"),
    [
        ('hostonly="yes"\n', "", True),
        ("hostonly=no\n", "", False),
        ("", "059-4", False),
        ("", "108", False),
        ("", "109-3", True),
        ("", "", True),
        ("# hostonly=no\n", "110", True),
        ('hostonly="no"\ninstall_optional_items+=" /etc/modprobe.d/zz-nestd.conf "\n', "", True),
        ("hostonly='no'\ninstall_items+='/a /etc/modprobe.d/*.conf'\n", "", True),
        ("hostonly='no'\ninstall_items+=' /etc/modprobe.d/zz-nestd.conf '\ninstall_items=/a\n", "", False),
    ],
)
def test_dracut_that_does_not_copy_etc(tree: Tree, settings: str, version: str, copies: bool) -> None:
    dracut(tree, settings)
    if version:
        tree.write("/usr/lib/dracut/dracut-version.sh", f"#!/bin/sh\nDRACUT_VERSION={version}\n")
    image(tree, IMAGE, "dracut", {DRIVER: ""})
    host = initramfs.host(tree)
    if copies:
        assert len(renewals(host, after(tree, OFF))) == 1
        return
    with pytest.raises(errors.Overridden) as caught:
        renewals(host, after(tree, OFF))
    words = str(caught.value)
    assert IMAGE in words and 'install_optional_items+=" /etc/modprobe.d/zz-nestd.conf "' in words
    assert "still give nested on" in words and "Nothing was changed" in words
    # What it gives anyway is no reason to refuse, and to take back is always possible.
    assert renewals(host, after(tree, ON)) == ()
    assert renewals(host, after(tree.dropin("x.conf", OFF), None)) == ()


def test_mkinitcpio_without_modconf(tree: Tree) -> None:
    tree.write("/etc/mkinitcpio.conf", "# modconf\nHOOKS=(base udev)\n")
    tree.write("/etc/mkinitcpio.d/linux.preset", PRESET)
    entry(tree, "m", "ro", version=RELEASE, linux="/vmlinuz", initrd="/boot/initramfs-linux.img")
    image(tree, "/boot/initramfs-linux.img", "mkinitcpio", {DRIVER: ""})
    with pytest.raises(errors.Overridden, match="Add modconf to HOOKS"):
        renewals(initramfs.host(tree), after(tree, OFF))


def test_mkinitcpio_of_kernel_install(tree: Tree) -> None:
    """No preset names it: as its own kernel-install plugin makes it."""
    path = f"/efi/abc/{RELEASE}/initrd"
    tree.write("/etc/machine-id", "abc\n")
    image(tree, path, "mkinitcpio", {DRIVER: ""})
    [run] = renewals(initramfs.host(tree), after(tree))
    assert run == Run(("mkinitcpio", "-k", RELEASE, "-g", path), keeps=(path,))


def test_dracut_of_kernel_install(tree: Tree) -> None:
    path = f"/efi/abc/{RELEASE}/initrd"
    image(dracut(tree).write("/etc/kernel/entry-token", "abc\n"), path, "dracut", {DRIVER: ""})
    image(tree, f"/efi/another/{RELEASE}/initrd", "dracut", {DRIVER: ""})
    host = initramfs.host(tree)
    runs = renewals(host, after(tree))
    assert [run.keeps for run in runs] == [(path,)]
    tree.dropin("zz-nestd.conf", ON).write(f"{path}.nestd-new", "what a crash has left")
    carry_out(host, runs)
    assert renewals(host, after(tree)) == ()


@pytest.mark.parametrize("maker", ["initramfs-tools", "dracut"])
def test_copies_on_a_boot_partition(tree: Tree, maker: str) -> None:
    """Debian with systemd-boot: the image in /boot is made, and nestd replaces its copy whole.

    kernel-install, which update-initramfs's hook would call, wrote over the kernel, too.
    """
    folder, conf = f"/efi/abc/{RELEASE}", f"/efi/loader/entries/abc-{RELEASE}.conf"
    copy, kernel = f"{folder}/initrd.img-{RELEASE}", f"{folder}/linux"
    dracut(tree).write("/etc/machine-id", "abc\n").write(conf, f"sort-key a\nlinux /l\ninitrd {copy[4:]}\n")
    tree.write(f"/efi/loader/entries/abc-{RELEASE}9.conf", "title y\n").write(f"/boot/vmlinuz-{RELEASE}", "k")
    tree.write(kernel, "k").write(f"{copy}.nestd-new", "what a crash has left")
    tree.write("/etc/initramfs/post-update.d/systemd-boot", '#!/bin/sh\nkernel-install add "$1"\n')
    for path in (IMAGE, copy):
        image(tree, path, maker, {DRIVER: "", ZZ: OFF})
    others = [tree.path(path) for path in (kernel, conf)]
    before = [(path.stat().st_ino, path.stat().st_mtime_ns) for path in others]
    host = initramfs.host(tree)
    first, second = renewals(host, after(tree))
    assert [first.keeps, second.keeps] == [(IMAGE,), (copy,)]
    assert str(second) == f"copy {IMAGE} to {copy}"
    tree.dropin("zz-nestd.conf", ON)
    carry_out(host, (first, second))
    assert renewals(host, after(tree)) == ()
    assert learn(host) == Image(copy, ("kvm", "kvm_amd"), ((f"/{ZZ}", ON),), "", maker)
    assert [(path.stat().st_ino, path.stat().st_mtime_ns) for path in others] == before
    assert sorted(path.name for path in tree.path(folder).iterdir()) == [f"initrd.img-{RELEASE}", "linux"]


@pytest.mark.parametrize("failing", ["cp", "sync", "mv"])
def test_a_copy_that_fails_leaves_the_old_one(tree: Tree, failing: str) -> None:
    copy = f"/efi/abc/{RELEASE}/initrd.img-{RELEASE}"
    dracut(tree).write("/etc/machine-id", "abc\n")
    for path in (IMAGE, copy):
        image(tree, path, "dracut", {DRIVER: "", ZZ: OFF})
    host = initramfs.host(tree)
    _, second = renewals(host, after(tree))
    tool = tree.path(f"/.kernel/bin/{failing}")
    tool.unlink()
    tool.write_text("#!/bin/sh\necho no space left >&2\nexit 1\n")
    tool.chmod(0o755)
    old = tree.path(copy).read_bytes()
    done = loop.run(host.commands.run(*second.argv))
    assert done.code != 0 and "no space left" in done.err
    assert tree.path(copy).read_bytes() == old
    assert [path.name for path in tree.path(copy).parent.iterdir()] == [f"initrd.img-{RELEASE}"]


@pytest.mark.parametrize(
    ("maker", "missing"),
    [
        ("initramfs-tools", "update-initramfs -u -k"),
        ("dracut", "dracut -f"),
        ("mkinitcpio", "mkinitcpio -k"),
    ],
)
def test_a_maker_that_is_gone(tree: Tree, maker: str, missing: str) -> None:
    image(dracut(tree), IMAGE, maker, {DRIVER: ""})
    host = initramfs.host(tree, ())
    with pytest.raises(errors.BootloaderFailed, match=f"`{missing} .*Nothing was changed. Install {maker}"):
        renewals(host, after(tree))


def test_update_initramfs_that_may_not(tree: Tree) -> None:
    image(tree, IMAGE, "initramfs-tools", {DRIVER: ""})
    tree.write("/etc/initramfs-tools/update-initramfs.conf", "update_initramfs=no # by hand\n")
    with pytest.raises(errors.BootloaderFailed, match="update_initramfs=no"):
        renewals(initramfs.host(tree), after(tree))


@pytest.mark.parametrize(
    ("path", "maker", "why"),
    [
        (IMAGE, "", "who made it"),
        ("/boot/custom.img", "dracut", "of which kernel it is"),
        ("/boot/EFI/Linux/a.efi", "dracut", "unified kernel image"),
        ("/boot/custom.img", "initramfs-tools", "of which kernel it is"),
        (f"/efi/x/{RELEASE}/initrd", "initramfs-tools", "who made it"),
    ],
)
def test_what_nobody_can_make(tree: Tree, path: str, maker: str, why: str) -> None:
    version = RELEASE if path.startswith("/efi") else ""
    entry(tree, "m", "ro", version=version, linux="/x", initrd=path)
    image(tree, path, maker, {DRIVER: ""})
    if path.endswith(".efi"):
        tree.path(path).write_bytes(unified({".linux": b"k", ".initrd": tree.path(path).read_bytes()}))
    with pytest.raises(errors.BootloaderFailed, match=why):
        renewals(initramfs.host(tree), after(tree))


def test_a_system_of_ostree(tree: Tree) -> None:
    image(tree.write("/run/ostree-booted", ""), IMAGE, "dracut", {DRIVER: "", ZZ: OFF})
    with pytest.raises(errors.BootloaderFailed, match="rpm-ostree initramfs-etc --track="):
        renewals(initramfs.host(tree), after(tree))


def test_what_cannot_be_looked_into(tree: Tree, capfd: pytest.CaptureFixture[str]) -> None:
    tree.write(IMAGE, "nonsense")
    assert renewals(initramfs.host(tree), after(tree)) == ()
    assert "cannot be told, so it is left alone" in capfd.readouterr().err


def test_a_driver_without_a_switch(tree: Tree) -> None:
    image(tree, IMAGE, "dracut", {DRIVER: ""})
    configuration = Configuration.read(tree.root)
    host = initramfs.host(tree)
    assert loop.run(images.learn(host, configuration, AMD._replace(switch=""))) is None
    assert loop.run(images.learn(host, configuration, None)) is None
    assert dropin.PATH.removeprefix("/") == ZZ
