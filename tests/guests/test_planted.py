# SPDX-License-Identifier: LGPL-2.1-or-later
"""Links and folders of others where guests' records are kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nestd.errors import LaunchFailed
from nestd.guests import places
from tests.guests.house import House, run


def _record_link(top: Path, victim: Path) -> None:
    (top / "run/nestd/registry").mkdir(parents=True, mode=0o700)
    (top / places.record("demo")[1:]).symlink_to(victim / "new")


def _folder_link(top: Path, victim: Path) -> None:
    (top / "run/nestd").mkdir(parents=True)
    (top / places.REGISTRY[1:]).symlink_to(victim)


def _open_folder(top: Path, victim: Path) -> None:
    (top / "run/nestd").mkdir(parents=True)
    (top / "run/nestd").chmod(0o777)


PLANTS = [
    (_record_link, "/run/nestd/registry/demo.json: a symbolic link"),
    (_folder_link, "the folder /run/nestd/registry is a symbolic link"),
    (_open_folder, "the folder /run/nestd may be written to by others"),
]


@pytest.mark.parametrize(("plant", "words"), PLANTS)
def test_a_guest_whose_record_cannot_be_kept_does_not_run(
    tmp_path: Path, plant: Callable[[Path, Path], None], words: str
) -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            plant(house.top, tmp_path)
            with pytest.raises(LaunchFailed, match=words):
                await nestd.launch()
            assert nestd.registry.records == ()
        assert house.runs() == []

    run(scenario)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("plant", [_record_link, _folder_link])
def test_what_is_planted_while_nestd_is_away_is_not_read(
    tmp_path: Path, plant: Callable[[Path, Path], None]
) -> None:
    async def scenario(house: House) -> None:
        async with house.nestd() as nestd:
            await nestd.launch()
        (house.top / places.record("demo")[1:]).unlink()
        (house.top / places.REGISTRY[1:]).rmdir()
        (house.top / "run/nestd").rename(house.top / "run/old")
        (house.top / "run/nestd").mkdir()
        (house.top / "run/old/guests").rename(house.top / "run/nestd/guests")
        if plant is _record_link:
            (house.top / places.REGISTRY[1:]).mkdir(mode=0o700)
            (house.top / places.record("demo")[1:]).symlink_to(tmp_path / "new")
        else:
            (house.top / places.REGISTRY[1:]).symlink_to(tmp_path)
        async with house.nestd() as nestd:
            # It runs on, but is not taken up with a record that cannot be kept.
            assert nestd.registry.records == ()
        assert house.runs() == ["demo"]

    run(scenario)
    assert list(tmp_path.iterdir()) == []
