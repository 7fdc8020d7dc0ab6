# SPDX-License-Identifier: LGPL-2.1-or-later
"""The Debian package. That it installs, upgrades and purges is proved in tests/vm/test_service.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from nestd import __version__
from tests.packaging import house

RELOAD = "usr/lib/systemd/system/nestd.service.d/notify-reload.conf"


def fields(unpacked: Path) -> dict[str, str]:
    lines = (unpacked / "DEBIAN/control").read_text().splitlines()
    return dict(line.split(": ", 1) for line in lines if line[0] != " ")


def depends(unpacked: Path) -> list[str]:
    return fields(unpacked)["Depends"].split(", ")


def test_name_and_version(tree: Path, deb: Path, deb_unpacked: Path) -> None:
    assert deb == tree / f"dist/nestd_{__version__}_all.deb"
    assert fields(deb_unpacked)["Version"] == __version__


def test_the_unit_is_where_debhelper_looks_for_it(deb_unpacked: Path) -> None:
    unit = (deb_unpacked / "lib/systemd/system/nestd.service").read_text()
    assert "ExecStart=/usr/sbin/nestd\n" in unit
    assert (deb_unpacked / "usr/lib/sysusers.d/nestd.conf").is_file()
    script = (deb_unpacked / "DEBIAN/postinst").read_text()
    assert "'nestd.service'" in script and "systemd-sysusers" in script


def test_no_unit_says_what_this_systemd_does_not_know(deb_unpacked: Path) -> None:
    """Debian 12's is 252."""
    assert not (deb_unpacked / RELOAD).exists()
    assert "systemd" in depends(deb_unpacked)


def test_for_a_newer_systemd_and_of_another_version(newer_deb: Path, newer_deb_unpacked: Path) -> None:
    assert newer_deb.name == "nestd_9.8.7_all.deb"
    assert "\nType=notify-reload\n" in (newer_deb_unpacked / RELOAD).read_text()
    assert "systemd (>= 253)" in depends(newer_deb_unpacked)
    assert fields(newer_deb_unpacked)["Version"] == "9.8.7"


@pytest.mark.parametrize("script", ["build-deb", "build-rpm", "build-arch"])
def test_the_scripts_say_what_they_take(script: str) -> None:
    path = house.TREE / "packaging" / script
    said = house.run(path, "--help").stdout
    assert "--into FOLDER" in said and "set -" not in said
    wrong = house.run(path, "--frobnicate")
    assert (wrong.returncode, wrong.stdout) == (2, "") and "--frobnicate" in wrong.stderr


def test_what_it_needs(deb_unpacked: Path) -> None:
    needed = {one.split(" ")[0] for one in depends(deb_unpacked)}
    assert {"kmod", "systemd", "python3-dbus-next", "python3-pyudev", "python3-systemd"} <= needed
    assert "polkitd" in fields(deb_unpacked)["Recommends"]


def test_what_the_scripts_leave_alone(deb_unpacked: Path) -> None:
    scripts = "".join(
        (deb_unpacked / "DEBIAN" / script).read_text() for script in ("postinst", "prerm", "postrm")
    )
    for word in ("modprobe ", "rmmod", "nestd-guest"):
        assert word not in scripts


def test_lintian_has_nothing_to_say(deb: Path) -> None:
    done = house.run("lintian", "--fail-on", "error,warning", deb)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_same_tree_gives_the_same_bytes(tree: Path, deb: Path, tmp_path: Path) -> None:
    second = house.copy(tree, tmp_path / "elsewhere/second")
    assert house.build(second, "build-deb").read_bytes() == deb.read_bytes()
