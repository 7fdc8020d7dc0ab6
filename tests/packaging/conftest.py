# SPDX-License-Identifier: LGPL-2.1-or-later
"""Each package, built once for all tests, of one copy of this tree; and what is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
def newer_deb(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For Debian 13's systemd, and of another version."""
    options = ("--version", "9.8.7", "--systemd", "257.9-1")
    return house.build(tree, "build-deb", *options, "--into", tmp_path_factory.mktemp("newer-deb"))


@pytest.fixture(scope="session")
def rpm(tree: Path) -> Path:
    return house.build(tree, "build-rpm")


@pytest.fixture(scope="session")
def arch(tree: Path) -> Path:
    return house.build(tree, "build-arch")


@pytest.fixture(scope="session")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return house.build_wheel(tree, tmp_path_factory.mktemp("wheel"))


def _unpacked(package: str) -> Any:
    @pytest.fixture(scope="session")
    def unpacked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return house.unpack(request.getfixturevalue(package), tmp_path_factory.mktemp(f"{package}-unpacked"))

    return unpacked


deb_unpacked = _unpacked("deb")
newer_deb_unpacked = _unpacked("newer_deb")
rpm_unpacked = _unpacked("rpm")
arch_unpacked = _unpacked("arch")
wheel_unpacked = _unpacked("wheel")
