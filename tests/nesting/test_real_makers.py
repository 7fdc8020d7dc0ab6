# SPDX-License-Identifier: LGPL-2.1-or-later
"""The real update-initramfs and dracut, with a made-up kernel: what nestd takes them to do."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from nestd import errors
from nestd.host.commands import Commands
from nestd.host.initramfs import Image
from nestd.host.machine import Host
from nestd.model import DriverState, Nesting
from nestd.nesting import boot, images
from nestd.nesting.boot import Configuration
from nestd.nesting.steps import Run
from tests.nesting.machines import Machine
from tests.nesting.test_images import AMD, IMAGE, OFF, ON, ZZ, after, learn, status
from tests.support import loop
from tests.support.initramfs import PATH
from tests.support.tree import RELEASE, Tree

# Folders of the tree that take the place of the machine's own while a maker runs.
_PLACES = (
    "/boot",
    "/etc/modprobe.d",
    "/etc/dracut.conf.d",
    "/etc/initramfs-tools",
    "/lib/modules",
    "/etc/initramfs",
)
# As little as it can be brought to do, so that it takes seconds.
_DRACUT = """dracutmodules="base kernel-modules"
add_drivers+=" {module} "
hostonly="{hostonly}"
compress="gzip -1"
do_strip="no"
do_hardlink="no"
early_microcode="no"
"""


@pytest.fixture(params=["initramfs-tools", "dracut"])
def maker(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A kernel whose modules are empty object files, which depmod and modprobe take."""
    tree = Tree(tmp_path).amd()
    folder = tree.path(f"/lib/modules/{RELEASE}/kernel/arch/x86/kvm")
    folder.mkdir(parents=True)
    for name in ("kvm-amd", "dummy"):
        source = tmp_path / f"{name}.c"
        source.write_text(
            f'char n[] __attribute__((section(".modinfo"))) = "name={name.replace("-", "_")}";\n'
        )
        subprocess.run(["gcc", "-c", "-o", folder / f"{name}.ko", source], check=True)
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        tree.write(f"/lib/modules/{RELEASE}/{name}", "")
    subprocess.run(["depmod", "-b", tmp_path, RELEASE], check=True)
    shutil.copytree("/etc/initramfs-tools", tree.path("/etc/initramfs-tools"))
    tree.write("/etc/initramfs-tools/initramfs.conf", "MODULES=list\nBUSYBOX=n\nKEYMAP=n\nCOMPRESS=gzip\n")
    tree.write(f"/boot/config-{RELEASE}", "CONFIG_RD_GZIP=y\n")
    for place in _PLACES:
        tree.path(place).mkdir(parents=True, exist_ok=True)
    return tree


def host(tree: Tree) -> Host:
    return Machine.of(tree).host._replace(commands=Commands(PATH))


def carrying(tree: Tree, module: str, hostonly: str = "yes") -> None:
    tree.write("/etc/initramfs-tools/modules", f"{module}\n")
    text = _DRACUT.format(module=module, hostonly=hostonly)
    tree.write("/etc/dracut.conf.d/a.conf", text)


def run(tree: Tree, argv: tuple[str, ...]) -> None:
    """Run a maker with the tree's folders in place of the machine's."""
    binds = "\n".join(f"mkdir -p {place}; mount --bind {tree.path(place)} {place}" for place in _PLACES)
    script = f'set -e\n{binds}\nexec "$@"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", *argv]
    environment = {**os.environ, "PATH": PATH, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, (argv, done.stdout, done.stderr)


def made(tree: Tree, maker: str) -> None:
    """The image, as the package's own hook makes it when a kernel is installed."""
    if maker == "dracut":
        run(tree, ("dracut", "-q", "--force", IMAGE, RELEASE))
    else:
        run(tree, ("update-initramfs", "-c", "-k", RELEASE))


def renewals(tree: Tree, content: str | None = ON) -> tuple[Run, ...]:
    return loop.run(images.renewals(host(tree), after(tree, content), AMD, DriverState.LOADED))


def test_a_stale_option_is_healed(tree: Tree, maker: str) -> None:
    carrying(tree, "kvm_amd")
    tree.dropin("zz-nestd.conf", OFF)
    made(tree, maker)
    assert learn(host(tree)) == Image(IMAGE, ("kvm_amd",), ((f"/{ZZ}", OFF),), "", maker)
    runs = renewals(tree)
    assert len(runs) == 1 and runs[0].keeps == (IMAGE,)
    tree.dropin("zz-nestd.conf", ON)
    assert status(host(tree))[0] is Nesting.OFF
    for one in (*runs, *runs):
        run(tree, one.argv)
    assert learn(host(tree)) == Image(IMAGE, ("kvm_amd",), ((f"/{ZZ}", ON),), "", maker)
    assert status(host(tree)) == (Nesting.ON, f"{IMAGE}:/{ZZ}:1", ())
    assert renewals(tree) == () and len(renewals(tree, None)) == 1
    assert not [path.name for path in tree.path("/boot").iterdir() if "new" in path.name]


def test_without_the_driver_it_is_left_alone(tree: Tree, maker: str) -> None:
    carrying(tree, "dummy")
    made(tree, maker)
    assert learn(host(tree)) == Image(IMAGE, maker=maker)
    assert renewals(tree) == ()


def test_dracut_that_does_not_copy_etc(tree: Tree) -> None:
    carrying(tree, "kvm_amd", hostonly="no")
    tree.dropin("zz-nestd.conf", OFF)
    made(tree, "dracut")
    assert learn(host(tree)) == Image(IMAGE, ("kvm_amd",), maker="dracut")
    assert status(host(tree)) == (Nesting.ON, IMAGE, ("/etc/modprobe.d/zz-nestd.conf:1",))
    with pytest.raises(errors.Overridden) as caught:
        renewals(tree, OFF)
    line = str(caught.value).partition("Write ")[2].partition(" into /etc/dracut.conf.d/nestd.conf")[0]
    tree.write("/etc/dracut.conf.d/nestd.conf", f"{line}\n")
    [one] = renewals(tree, OFF)
    run(tree, one.argv)
    learn(host(tree))
    assert boot.solve(Configuration.read(tree.root), AMD, DriverState.LOADED).nested is Nesting.OFF
    # With the file gone the line does no harm.
    tree.gone(f"/{ZZ}")
    run(tree, one.argv)
    assert learn(host(tree)) == Image(IMAGE, ("kvm_amd",), maker="dracut")
