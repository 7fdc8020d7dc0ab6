# SPDX-License-Identifier: LGPL-2.1-or-later
"""The RPM package: rpmlint, and installed, upgraded and erased by the real rpm, in a folder."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from nestd import __version__
from tests.packaging import house, taken_back
from tests.packaging.root import Root

PACKAGING = house.TREE / "packaging/rpm"
RELOADS = "busctl --quiet call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus ReloadConfig"


def rpm_in(root: Root, *words: str | Path) -> str:
    """What rpm says; it must end with 0. Without --force-debian it asks whether alien would not be better."""
    alone = [] if "--query" in words else ["--force-debian", "--nodeps"]
    done = house.run("rpm", f"--root={root.top}", *alone, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def query(rpm: Path, what: str) -> list[str]:
    done = house.run("rpm", "-q", what, "-p", rpm)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path / "root")


@pytest.fixture(scope="module")
def newer(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return house.build(tree, "build-rpm", "--version", "9.8.7", "--into", tmp_path_factory.mktemp("newer"))


def test_name_and_what_it_needs(tree: Path, rpm: Path) -> None:
    assert rpm == tree / f"dist/nestd-{__version__}-1.noarch.rpm"
    needed = query(rpm, "--requires")
    assert {"dbus", "kmod", "systemd >= 253", "/usr/bin/python3"} <= set(needed)
    # rpm's own generator takes these from the wheel.
    wanted = {"dbus-next) >= 0.2.3", "pyudev) >= 0.24", "systemd-python) >= 234"}
    assert wanted == {one.split("dist(")[1] for one in needed if "dist(" in one}
    assert any(one.startswith("python(abi) = 3.") for one in needed)
    assert {"polkit", "qemu-kvm-core"} <= set(query(rpm, "--recommends"))


def test_rpmlint_says_nothing_but_what_is_meant(rpm: Path, tmp_path: Path) -> None:
    config = tomllib.loads((PACKAGING / "rpmlint.toml").read_text())
    bare = tmp_path / "bare.toml"
    bare.write_text(
        "".join(f"{key} = {value!r}\n" for key, value in config.items() if key != "Filters").replace("'", '"')
    )
    said = house.run("rpmlint", "-c", bare, PACKAGING / "nestd.spec", rpm).stdout
    found = re.findall(r"^\S+: [EW]: .*$", said, re.M)
    assert found, said
    filters = config["Filters"]
    assert [line for line in found if not any(re.search(one, line) for one in filters)] == []
    assert [one for one in filters if not any(re.search(one, line) for line in found)] == []


def test_the_same_tree_gives_the_same_bytes(tree: Path, rpm: Path, tmp_path: Path) -> None:
    second = house.copy(tree, tmp_path / "elsewhere/second")
    assert house.build(second, "build-rpm").read_bytes() == rpm.read_bytes()


def test_the_source_package_has_spec_and_archive(tree: Path, tmp_path: Path) -> None:
    source = house.build(tree, "build-rpm", "--source", "--into", tmp_path)
    assert query(source, "--list") == [f"nestd-{__version__}.tar.gz", "nestd.spec"]


def test_the_bytecode_is_of_what_is_shipped(rpm_unpacked: Path) -> None:
    """Python looks at the source's time: were it another one, root's daemon would compile at every start."""
    compiled = list(rpm_unpacked.rglob("*.pyc"))
    assert compiled
    for path in compiled:
        header = path.read_bytes()[:16]
        assert header[4:8] == bytes(4)
        source = path.parents[1] / f"{path.name.split('.')[0]}.py"
        assert int.from_bytes(header[8:12], "little") == int(source.stat().st_mtime), path


def test_installing_enables_as_presets_say_and_starts_nothing(rpm: Path, root: Root) -> None:
    rpm_in(root, "--install", rpm)
    assert root.calls() == [RELOADS, "systemd-update-helper install-system-units nestd.service"]
    # All is as it was packed.
    assert rpm_in(root, "--verify", "nestd") == ""
    for path in (taken_back.DROPIN, taken_back.STATE):
        assert rpm_in(root, "--query", "--file", f"/{path}").startswith("nestd-")


def test_where_nothing_runs_nobody_is_told(rpm: Path, tmp_path: Path) -> None:
    """An image that is made."""
    root = Root(tmp_path / "root", booted=False)
    rpm_in(root, "--install", rpm)
    assert root.calls() == ["systemd-update-helper install-system-units nestd.service"]


def test_an_upgrade_keeps_all_that_was_set_and_restarts(rpm: Path, newer: Path, root: Root) -> None:
    rpm_in(root, "--install", rpm)
    taken_back.prepare(root)
    root.calls()
    rpm_in(root, "--upgrade", newer)
    assert root.calls() == [RELOADS, "systemd-update-helper mark-restart-system-units nestd.service"]
    assert rpm_in(root, "--query", "nestd").startswith("nestd-9.8.7-1.")
    assert rpm_in(root, "--verify", "nestd") == ""
    taken_back.assert_kept(root)


@pytest.mark.parametrize("works", [True, False])
def test_erasing_takes_back(rpm: Path, root: Root, works: bool) -> None:
    rpm_in(root, "--install", rpm)
    taken_back.prepare(root, works=works)
    root.calls()
    said = rpm_in(root, "--erase", "nestd")
    assert root.calls() == ["systemd-update-helper remove-system-units nestd.service"]
    taken_back.assert_taken_back(root, said, works=works)
    assert not [x for x in house.files(root.top / "usr") if "nestd" in x]


def test_all_packages_take_back_alike() -> None:
    first, *others = (taken_back.block(script) for script in taken_back.scripts())
    assert others == [first, first]
