# SPDX-License-Identifier: LGPL-2.1-or-later
"""Each package, built once for all tests, of one copy of this tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.packaging import house


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return house.copy(house.TREE, tmp_path_factory.mktemp("tree") / "nestd")


@pytest.fixture(scope="session")
def deb(tree: Path) -> Path:
    """For this machine's systemd."""
    return house.build(tree, "build-deb")


@pytest.fixture(scope="session")
def deb_unpacked(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return house.unpack(deb, tmp_path_factory.mktemp("deb"))


@pytest.fixture(scope="session")
def newer_deb(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For Debian 13's systemd, and of another version."""
    options = ("--version", "9.8.7", "--systemd", "257.9-1")
    return house.build(tree, "build-deb", *options, "--into", tmp_path_factory.mktemp("newer-deb"))


@pytest.fixture(scope="session")
def newer_deb_unpacked(newer_deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return house.unpack(newer_deb, tmp_path_factory.mktemp("newer-deb-unpacked"))


@pytest.fixture(scope="session")
def rpm(tree: Path) -> Path:
    return house.build(tree, "build-rpm")


@pytest.fixture(scope="session")
def rpm_unpacked(rpm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return house.unpack(rpm, tmp_path_factory.mktemp("rpm"))


@pytest.fixture(scope="session")
def arch(tree: Path) -> Path:
    return house.build(tree, "build-arch")


@pytest.fixture(scope="session")
def arch_unpacked(arch: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return house.unpack(arch, tmp_path_factory.mktemp("arch"))


@pytest.fixture(scope="session")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return house.build_wheel(tree, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def wheel_unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return house.unpack(wheel, tmp_path_factory.mktemp("wheel-unpacked"))
