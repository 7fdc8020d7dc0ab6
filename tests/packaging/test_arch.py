# SPDX-License-Identifier: LGPL-2.1-or-later
"""The Arch package: made by the real makepkg, and installed and removed by the real pacman, in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from nestd import __version__
from tests.packaging import house, taken_back
from tests.packaging.root import Root

PACKAGING = house.TREE / "packaging"


def pacman(root: Root, *words: str | Path) -> str:
    """What pacman says; it must end with 0."""
    folders = (f"--root={root.top}", f"--dbpath={root.top}/var/lib/pacman", f"--cachedir={root.top}/tmp")
    done = house.run("pacman", *folders, "--noconfirm", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path / "root")


def information(unpacked: Path) -> dict[str, set[str]]:
    """.PKGINFO: key, and all its values."""
    found: dict[str, set[str]] = {}
    for line in (unpacked / ".PKGINFO").read_text().splitlines():
        if not line.startswith("#"):
            key, _, value = line.partition(" = ")
            found.setdefault(key, set()).add(value)
    return found


def test_name_and_what_it_needs(tree: Path, arch: Path, arch_unpacked: Path) -> None:
    assert arch == tree / f"dist/nestd-{__version__}-1-any.pkg.tar.zst"
    told = information(arch_unpacked)
    assert told["pkgver"] == {f"{__version__}-1"}
    modules = {"python-dbus-next", "python-pyudev", "python-systemd"}
    assert told["depend"] == {"dbus", "kmod", "python", "systemd", *modules}


def test_nothing_is_where_arch_has_a_link(arch_unpacked: Path) -> None:
    for folder in ("bin", "lib", "lib64", "sbin", "usr/sbin", "usr/lib64", "var/run"):
        assert not (arch_unpacked / folder).exists()


@pytest.mark.parametrize("file", ["arch/PKGBUILD", "arch/nestd.install"])
def test_shellcheck(file: str) -> None:
    done = house.run("shellcheck", PACKAGING / file)
    assert (done.returncode, done.stdout) == (0, "")


def test_every_script_of_packaging_is_clean() -> None:
    scripts = [
        path
        for path in [
            *PACKAGING.iterdir(),
            *PACKAGING.glob("debian/nestd.p*"),
            *PACKAGING.glob("debian/tests/*"),
        ]
        if path.is_file() and path.read_text().startswith(("#!/bin/bash", "#!/bin/sh"))
    ]
    assert {"build-arch", "build-deb", "build-rpm", "nestd.postrm", "sources"} <= {x.name for x in scripts}
    done = house.run("shellcheck", *scripts)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_same_tree_gives_the_same_files(tree: Path, arch_unpacked: Path, tmp_path: Path) -> None:
    """Whole packages are alike where the folder is, too: makepkg writes it down in .BUILDINFO."""
    second = house.unpack(
        house.build(house.copy(tree, tmp_path / "elsewhere/second"), "build-arch"), tmp_path / "unpacked"
    )

    def told(top: Path) -> dict[str, tuple[int, int, bytes]]:
        return {
            path: ((top / path).stat().st_mode, int((top / path).stat().st_mtime), (top / path).read_bytes())
            for path in house.files(top) - {".BUILDINFO", ".MTREE"}
        }

    assert told(second) == told(arch_unpacked)


def test_installing_starts_nothing_and_says_how_to(arch: Path, root: Root) -> None:
    said = pacman(root, "--upgrade", "--nodeps", "--nodeps", arch)
    assert root.calls() == []
    assert "systemctl enable --now nestd.service" in said
    checked = pacman(root, "--query", "--check", "--check", "nestd")
    assert ", 0 altered files" in checked, checked


def test_an_upgrade_keeps_all_that_was_set_and_restarts(arch: Path, root: Root) -> None:
    pacman(root, "--upgrade", "--nodeps", "--nodeps", arch)
    taken_back.prepare(root)
    # To pacman the same version is an upgrade like any other.
    assert "reinstalling nestd" in pacman(root, "--upgrade", "--nodeps", "--nodeps", arch)
    assert root.calls() == ["systemctl set-property nestd.service Markers=+needs-restart"]
    taken_back.assert_kept(root)


@pytest.mark.parametrize("works", [True, False])
def test_removing_takes_back(arch: Path, root: Root, works: bool) -> None:
    pacman(root, "--upgrade", "--nodeps", "--nodeps", arch)
    taken_back.prepare(root, works=works)
    said = pacman(root, "--remove", "nestd")
    assert root.calls() == ["systemctl --no-reload disable --now nestd.service"]
    taken_back.assert_taken_back(root, said, works=works)
    assert not [x for x in house.files(root.top / "usr") if "nestd" in x]
