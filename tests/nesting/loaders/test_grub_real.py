# SPDX-License-Identifier: LGPL-2.1-or-later
"""GRUB's drop-in with the real grub-mkconfig and 10_linux, the tree's files being the machine's."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from nestd.host import bootloader
from nestd.nesting.loaders import grub
from nestd.nesting.loaders.probe import Fit
from nestd.nesting.own import Own
from nestd.text.arguments import Edit, has
from tests.nesting.loaders.carried import NOTHING, OFF, ON, command_line, move, probe, state
from tests.nesting.loaders.grubbed import LOADER, grub_machine, made
from tests.nesting.machines import Machine

__all__ = ["grub_machine"]


_INSIDE = """\
set -e
top=$1
mount --make-rprivate /
mount --bind "$top/etc/default" /etc/default
mount --bind "$top/etc/grub.d" /etc/grub.d
mount --bind "$top/boot" /boot
mount --bind "$top/grub-probe" /usr/sbin/grub-probe
exec update-grub
"""
_PROBE = """\
#!/bin/sh
case "$*" in
    *target=device*) echo /dev/vda1 ;;
    *target=fs_uuid*) echo 1-2-3 ;;
    *target=fs*) echo ext2 ;;
    *) echo x ;;
esac
"""


@pytest.fixture
def real(machine: Machine) -> Machine:
    """The machine with the system's own scripts, and an update-grub that runs the system's in the tree."""
    tree = machine.tree
    shutil.rmtree(tree.path("/etc/grub.d"))
    tree.path("/etc/grub.d").mkdir()
    for name in ("00_header", "10_linux", "20_linux_xen", "40_custom"):
        shutil.copy(f"/etc/grub.d/{name}", tree.path(f"/etc/grub.d/{name}"))
    tree.write("/grub-probe", _PROBE).path("/grub-probe").chmod(0o755)
    tree.write("/inside", _INSIDE)
    path = "/usr/sbin:/usr/bin:/sbin:/bin"
    unshare = "/usr/bin/unshare -m" if os.geteuid() == 0 else "/usr/bin/unshare -Urm"
    update = f"#!/bin/sh\nPATH={path} exec {unshare} /bin/sh {tree.top}/inside {tree.top}\n"
    (machine.tools.folder / "update-grub").write_text(update)
    shutil.copy("/usr/sbin/grub-mkconfig", machine.tools.folder / "grub-mkconfig")
    return made(machine)


def test_the_real_grub_mkconfig(real: Machine) -> None:
    tree, before = real.tree, state(real)
    assert probe(real, LOADER).fit is Fit.FITS
    following = bootloader.read(tree.root)
    assert following is not None and following.source.startswith("/boot/grub/grub.cfg:")
    own = move(real, LOADER, Own(), Edit((ON,)))
    assert has(command_line(real), ON)
    assert move(real, LOADER, own, NOTHING) == Own()
    assert state(real) == before
    # in the middle of the default's arguments, with what sed and the shell could take for theirs
    said = f"a  kvm-amd.nested=0 x='b {OFF} c' y=*.^+ \\\"z  {OFF} z\\\" {OFF}"
    tree.write("/etc/default/grub", f'GRUB_CMDLINE_LINUX="{OFF}"\nGRUB_CMDLINE_LINUX_DEFAULT="{said}"\n')
    before = state(made(real))
    own = move(real, LOADER, Own(), Edit((ON,), (OFF,)))
    rows = [row for row in tree.read(grub.MADE).split("\n") if row.lstrip().startswith("linux\t")]
    assert rows and all(has(row, ON) for row in rows)
    assert not any(has(row.replace("'", '"'), word) for row in rows for word in (OFF, "kvm-amd.nested=0"))
    assert any(row.endswith(f"a  x='b {OFF} c' y=*.^+ \"z  {OFF} z\"") for row in rows)
    script = subprocess.run(["grub-script-check", tree.path(grub.MADE)], capture_output=True, check=False)
    assert script.returncode == 0, script
    assert move(real, LOADER, own, NOTHING) == Own()
    assert state(real) == before
