# SPDX-License-Identifier: LGPL-2.1-or-later
"""What nestd leaves on a machine, and what must have become of it when its package is gone."""

from __future__ import annotations

import re
from pathlib import Path

from tests.packaging import house
from tests.packaging.root import Root

DROPIN = "etc/modprobe.d/zz-nestd.conf"
STATE = "var/lib/nestd"
CONFIG = "etc/nestd/nestd.conf"
LEFT = (DROPIN, STATE, "run/nestd", CONFIG)
_UNDO = "cat /etc/told > /etc/was-undone; ls /etc/modprobe.d /usr/bin /usr/sbin > /etc/was-there 2>&1 || :\n"
_FAILS = f"{_UNDO}echo grub is broken >&2\nexit 3\n"


def prepare(root: Root, *, works: bool = True) -> None:
    """As nestd has left it: told for the next boots, a change waits, a guest's folder, a setting."""
    root.write(DROPIN, "options kvm_amd nested=0\n")
    root.write(f"{STATE}/undo", _UNDO if works else _FAILS)
    (root.top / STATE).chmod(0o700)  # as StateDirectoryMode= of nestd.service says
    root.write(f"{STATE}/pending", "off")
    root.write(CONFIG, "[Nesting]\n")
    root.write("etc/told", "x")
    (root.top / "run/nestd/guests").mkdir(parents=True)


def assert_kept(root: Root) -> None:
    """Nothing of it was touched."""
    assert root.there(*LEFT) == list(LEFT)
    assert root.there(f"{STATE}/undo", f"{STATE}/pending", "run/nestd/guests", "etc/was-undone") == [
        f"{STATE}/undo",
        f"{STATE}/pending",
        "run/nestd/guests",
    ]


def assert_taken_back(root: Root, said: str, *, works: bool = True) -> None:
    """The undo script was run after drop-in and nestd were gone; if it failed, it stays, and is told of."""
    assert (root.top / "etc/was-undone").read_text() == "x"
    there = (root.top / "etc/was-there").read_text().split()
    assert "zz-nestd.conf" not in there and "nestd" not in there and "nestctl" not in there
    if works:
        assert root.there(*LEFT) == [CONFIG]
    else:
        assert root.there(*LEFT) == [STATE, CONFIG]
        assert [x.name for x in (root.top / STATE).iterdir()] == ["undo"]
        for word in ("grub is broken", "/var/lib/nestd/undo", "rm -r /var/lib/nestd"):
            assert word in said


def block(script: Path) -> str:
    """The lines that take back, of a package's script."""
    text = script.read_text()
    [found] = re.findall(r"^    if \[ -e /var/lib/nestd/undo \].*?rm -rf /run/nestd$", text, re.M | re.S)
    return str(found)


def scripts() -> list[Path]:
    """All that have them."""
    names = ("debian/nestd.postrm", "rpm/nestd.spec", "arch/nestd.install")
    return [house.TREE / "packaging" / name for name in names]
