# SPDX-License-Identifier: LGPL-2.1-or-later
"""Debian's, Fedora's and Arch's package and the wheel bring the same files, to where each system has them."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.packaging import house

DOC = "usr/share/doc/nestd"
MODULE = "usr/lib/python3/dist-packages/nestd"
# What each system wants for itself.
OWN = {
    "deb_unpacked": {f"{DOC}/changelog", f"{DOC}/copyright"},
    "newer_deb_unpacked": {f"{DOC}/changelog", f"{DOC}/copyright"},
    "rpm_unpacked": {"usr/share/licenses/nestd/LICENSE"},
    "arch_unpacked": set(),
}
RELOAD = "usr/lib/systemd/system/nestd.service.d/notify-reload.conf"
# What the wheel does not have, beside documentation: pip makes programs of its own and has no gettext.
NOT_IN_THE_WHEEL = {
    "usr/bin/nestctl",
    "usr/sbin/nestd",
    *(f"usr/share/locale/{language}/LC_MESSAGES/nestd.mo" for language in ("de", "ru")),
}
# Of data/: what the packages make something of, beside the wheel's list.
PROGRAMS = {"nestctl", "nestd"}


def shared_data(tree: Path) -> dict[str, str]:
    pyproject = tomllib.loads((tree / "pyproject.toml").read_text())
    found: dict[str, str] = pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    return found


def brought(name: str, request: pytest.FixtureRequest) -> dict[str, bytes]:
    found = house.installed(request.getfixturevalue(name))
    assert OWN[name] <= set(found)
    return {path: data for path, data in found.items() if path not in OWN[name]}


def test_every_file_of_data_goes_somewhere(tree: Path) -> None:
    """Who adds one says in pyproject.toml where it belongs."""
    there = {x for x in house.files(tree / "data") if not x.startswith("po/")}
    assert {f"data/{x}" for x in there - PROGRAMS} == set(shared_data(tree))


def test_the_wheel_has_each_file_at_its_place(tree: Path, wheel_unpacked: Path) -> None:
    [data] = wheel_unpacked.glob("*.data/data")
    assert house.files(data) == set(shared_data(tree).values())
    for source, place in shared_data(tree).items():
        assert (data / place).read_bytes() == (tree / source).read_bytes(), source


@pytest.mark.parametrize("name", ["rpm_unpacked", "arch_unpacked"])
def test_each_package_brings_what_debians_brings(name: str, request: pytest.FixtureRequest) -> None:
    assert brought(name, request) == brought("newer_deb_unpacked", request)


def test_a_package_for_an_old_systemd_lacks_only_what_that_does_not_know(
    request: pytest.FixtureRequest,
) -> None:
    new = brought("newer_deb_unpacked", request)
    del new[RELOAD]
    assert brought("deb_unpacked", request) == new


def test_the_wheel_brings_it_too(wheel_unpacked: Path, request: pytest.FixtureRequest) -> None:
    [data] = wheel_unpacked.glob("*.data/data")
    module = {f"{MODULE}/{x}" for x in house.files(wheel_unpacked / "nestd")}
    found = {*module, *(house.on_debian(f"usr/{x}") for x in house.files(data))}
    brings = {x for x in brought("newer_deb_unpacked", request) if not x.startswith(f"{DOC}/")}
    assert found | NOT_IN_THE_WHEEL == brings
    assert not found & NOT_IN_THE_WHEEL


@pytest.mark.parametrize("name", OWN)
def test_the_module_is_whole_and_nothing_else(name: str, tree: Path, request: pytest.FixtureRequest) -> None:
    sources = {str(path.relative_to(tree / "nestd")) for path in (tree / "nestd").rglob("*.py")}
    found = {x.removeprefix(f"{MODULE}/") for x in brought(name, request) if x.startswith(f"{MODULE}/")}
    assert found == {*sources, "bus/org.nestd1.xml"}


@pytest.mark.parametrize("name", OWN)
def test_programs_run_isolated(name: str, request: pytest.FixtureRequest) -> None:
    top = request.getfixturevalue(name)
    for program in ("sbin/nestd", "bin/nestctl"):
        path = top / "usr" / program
        if name == "arch_unpacked":  # whose /usr/sbin is a link
            path = top / "usr/bin" / path.name
        assert path.read_text().startswith("#!/usr/bin/python3 -I\n")
        assert path.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("name", OWN)
def test_zsh_finds_its_completion(name: str, request: pytest.FixtureRequest) -> None:
    """Debian's zsh looks elsewhere than the others'."""
    [found] = (request.getfixturevalue(name) / "usr/share/zsh").rglob("_nestctl")
    assert found.parent.name == ("vendor-completions" if "deb" in name else "site-functions")


@pytest.mark.parametrize("name", OWN)
def test_each_program_has_its_page(name: str, request: pytest.FixtureRequest) -> None:
    assert {"usr/share/man/man1/nestctl.1", "usr/share/man/man8/nestd.8"} <= set(brought(name, request))


@pytest.mark.parametrize("name", OWN)
def test_nobody_else_may_write_to_what_is_shipped(name: str, request: pytest.FixtureRequest) -> None:
    top = request.getfixturevalue(name)
    open_to_others = [path for path in (top / "usr").rglob("*") if path.lstat().st_mode & 0o022]
    assert open_to_others == []
