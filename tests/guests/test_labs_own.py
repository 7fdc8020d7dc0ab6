# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is a lab's: its nodes' names while they are off, and their disks, without which they do not start."""

from __future__ import annotations

from pathlib import Path

import pytest

from nestd.errors import GuestExists, LaunchFailed
from nestd.guestmodel import GuestSpec, Network
from nestd.model import Extension
from tests.guests.house import NOBODY, House, run
from tests.guests.test_labs import BOTH, image_tool
from tests.guests.town import town


def test_the_name_of_a_node_is_its_labs_while_it_is_off_too() -> None:
    async def scenario(house: House) -> None:
        async with town(house) as daemon:
            for lab in ("town", "a-2"):
                await daemon.create(lab)
            await daemon.labs.stop("town", 10)
            for name in (*BOTH, "a-2-1"):
                with pytest.raises(GuestExists, match=f"{name} is a node of the lab .*choose another name"):
                    daemon.labs.check_guest(name)
                joins = GuestSpec(name, NOBODY.name, network=Network("lab", lab="a-2"))
                with pytest.raises(GuestExists, match="is a node of the lab"):
                    await daemon.labs.join(joins, Extension.SVM)
            for name in ("town", "town-", "town-0", "town-3", "town-01", "-1", "town-1-1", "a-2", "a-1"):
                daemon.labs.check_guest(name)
            for lab in ("town", "a-2"):
                await daemon.labs.remove(lab)
            daemon.labs.check_guest("town-1")

    run(scenario)


def _misses(house: House, path: Path, words: str) -> None:
    """Have QEMU end as it does without that file."""
    program = house.top / "bin/qemu-system-x86_64"
    hub, start = program.read_text().rsplit("exec ", 1)
    said = f"qemu-system-x86_64: -blockdev {{}}: {words}Could not open '{path}': No such file or directory"
    program.write_text(f'{hub}[ -e {path} ] || {{ echo "{said}" >&2; exit 1; }}\nexec {start}')


@pytest.mark.parametrize(
    ("lost", "before", "remedy"),
    [
        (
            "var/lib/nestd-labs/town/1-0.qcow2",
            "",
            r"disk of town-1 is gone.*remove the lab \(`nestctl lab remove town`\) and create it again",
        ),
        (
            "base.raw",
            "Could not open backing file: ",
            r"The base of the disk of town-1 has to stay at \S+/base\.raw: put it back as it was",
        ),
    ],
)
def test_a_disk_that_is_lost_is_named_and_what_to_do(lost: str, before: str, remedy: str) -> None:
    async def scenario(house: House) -> None:
        base = image_tool(house)
        async with town(house) as daemon:
            await daemon.create(disks=[{"path": str(base), "format": "raw"}])
            await daemon.labs.stop("town", 10)
            _misses(house, house.top / lost, before)
            (house.top / lost).rename(house.top / "elsewhere")
            with pytest.raises(LaunchFailed, match=rf"(?s)QEMU did not start .*No such file.*\n.*{remedy}"):
                await daemon.labs.start("town", Extension.SVM)
            assert (daemon.guests(), daemon.kept()) == ([], [("town", "")])
            (house.top / "elsewhere").rename(house.top / lost)
            await daemon.labs.start("town", Extension.SVM)
            await daemon.labs.remove("town")

    run(scenario)
