# SPDX-License-Identifier: LGPL-2.1-or-later
"""The Debian package, built from this tree."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from nestd import __version__

TREE = Path(__file__).parents[2]
DOC = "usr/share/doc/nestd"
OTHER_FILES = {
    "lib/systemd/system/nestd.service",
    "usr/bin/nestctl",
    "usr/lib/systemd/system/systemd-nspawn@.service.d/nestd.conf",
    "usr/lib/systemd/system/systemd-vmspawn@.service.d/nestd.conf",
    "usr/lib/sysusers.d/nestd.conf",
    "usr/sbin/nestd",
    "usr/share/bash-completion/completions/nestctl",
    "usr/share/dbus-1/interfaces/org.nestd1.xml",
    "usr/share/dbus-1/system-services/org.nestd1.service",
    "usr/share/dbus-1/system.d/org.nestd1.conf",
    *(f"{DOC}/{file}" for file in ("NEWS.md", "README.md", "changelog", "copyright")),
    "usr/share/man/man1/nestctl.1",
    "usr/share/man/man5/nestd.conf.5",
    "usr/share/man/man8/nestd.8",
    "usr/share/polkit-1/actions/org.nestd1.policy",
}
MODULE = "usr/lib/python3/dist-packages/nestd"


RELOAD = "usr/lib/systemd/system/nestd.service.d/notify-reload.conf"


def build(tree: Path, *options: str | Path) -> Path:
    done = subprocess.run(
        [tree / "packaging/build-deb", *options], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def deb() -> Path:
    return build(TREE)


@pytest.fixture(scope="module")
def unpacked(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(deb, tmp_path_factory.mktemp("deb"))


def unpack(deb: Path, folder: Path) -> Path:
    subprocess.run(["dpkg-deb", "--raw-extract", deb, folder], check=True, timeout=60)
    return folder


def depends(unpacked: Path) -> list[str]:
    [line] = [
        one for one in (unpacked / "DEBIAN/control").read_text().splitlines() if one.startswith("Depends: ")
    ]
    return line.removeprefix("Depends: ").split(", ")


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_name_and_version(deb: Path, unpacked: Path) -> None:
    assert deb == TREE / f"dist/nestd_{__version__}_all.deb"
    assert f"\nVersion: {__version__}\n" in (unpacked / "DEBIAN/control").read_text()


def test_each_file_is_in_its_place(unpacked: Path) -> None:
    found = {x for x in files(unpacked) if not x.startswith((f"{MODULE}/", f"{MODULE}-", "DEBIAN/"))}
    # debhelper compresses what is long.
    assert {x.removesuffix(".gz") for x in found} == OTHER_FILES


def test_no_unit_says_what_this_systemd_does_not_know(unpacked: Path) -> None:
    """Debian 12's is 252."""
    assert not (unpacked / RELOAD).exists()
    assert "systemd" in depends(unpacked)


def test_for_a_newer_systemd_and_of_another_version(tmp_path: Path) -> None:
    deb = build(TREE, "--version", "9.8.7", "--systemd", "257.9-1", "--into", tmp_path / "out")
    assert deb == tmp_path / "out/nestd_9.8.7_all.deb"
    found = unpack(deb, tmp_path / "unpacked")
    assert "\nType=notify-reload\n" in (found / RELOAD).read_text()
    assert "systemd (>= 253)" in depends(found)
    assert "\nVersion: 9.8.7\n" in (found / "DEBIAN/control").read_text()


def test_build_deb_says_what_it_takes() -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [TREE / "packaging/build-deb", *words], capture_output=True, text=True, check=False, timeout=60
        )

    assert all(option in run("--help").stdout for option in ("--version", "--systemd", "--into"))
    wrong = run("--frobnicate")
    assert (wrong.returncode, wrong.stdout) == (2, "") and "--frobnicate" in wrong.stderr


def test_the_module_is_whole_and_nothing_else(unpacked: Path) -> None:
    sources = {str(path.relative_to(TREE / "nestd")) for path in (TREE / "nestd").rglob("*.py")}
    assert files(unpacked / MODULE) == {*sources, "bus/org.nestd1.xml"}


@pytest.mark.parametrize("program", ["usr/sbin/nestd", "usr/bin/nestctl"])
def test_programs_run_isolated(unpacked: Path, program: str) -> None:
    path = unpacked / program
    assert path.read_text().startswith("#!/usr/bin/python3 -I\n")
    assert path.stat().st_mode & 0o777 == 0o755


def test_the_unit_starts_the_program_that_is_shipped(unpacked: Path) -> None:
    unit = (unpacked / "lib/systemd/system/nestd.service").read_text()
    assert "ExecStart=/usr/sbin/nestd\n" in unit


def test_what_it_needs(unpacked: Path) -> None:
    fields = dict(
        line.split(": ", 1)
        for line in (unpacked / "DEBIAN/control").read_text().splitlines()
        if line[0] != " "
    )
    needed = {one.split(" ")[0] for one in fields["Depends"].split(", ")}
    assert {"kmod", "systemd", "python3-dbus-next", "python3-pyudev", "python3-systemd"} <= needed
    assert "polkitd" in fields["Recommends"]


def test_what_the_scripts_leave_alone(unpacked: Path) -> None:
    scripts = "".join(
        (unpacked / "DEBIAN" / script).read_text() for script in ("postinst", "prerm", "postrm")
    )
    for word in ("modprobe ", "rmmod", "nestd-guest"):
        assert word not in scripts


def test_lintian_has_nothing_to_say(deb: Path) -> None:
    done = subprocess.run(
        ["lintian", "--fail-on", "error,warning", deb],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_same_tree_gives_the_same_bytes(tmp_path: Path) -> None:
    # Copies without git, in other places, with other times: only what is in the files may count.
    ignored = shutil.ignore_patterns(".*", "dist", "build", "__pycache__")
    first = shutil.copytree(TREE, tmp_path / "first", ignore=ignored, copy_function=shutil.copy)
    second = shutil.copytree(first, tmp_path / "elsewhere/second", copy_function=shutil.copy)
    assert build(first).read_bytes() == build(second).read_bytes()
