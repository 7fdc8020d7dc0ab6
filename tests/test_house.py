# SPDX-License-Identifier: LGPL-2.1-or-later
"""Things that must say the same in several files, and the line that every file begins with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from xml.etree import ElementTree

import pytest

from nestd import errors
from nestd.bus import boundary, guard
from nestd.ctl import arguments
from nestd.guestmodel import GuestState
from nestd.model import DriverState, Extension, Nesting, Obstacle, Policy, Scope
from nestd.nesting.loaders import choose
from nestd.text import settings

TOP = Path(__file__).resolve().parents[1]
XML = TOP / "data/org.nestd1.xml"
SOURCES = ("nestd", "data", "examples", "packaging", "tests", ".ci")
# What cannot hold a comment, is prose, or is a capture or a text that must be what it is.
WITHOUT_A_LINE = {".md", ".json", ".pyc", ".txt", ".patch", ".install", ".links", ".docs"}
CAPTURED = ("tests/captures", "packaging/debian")


def sources() -> Iterator[Path]:
    for folder in SOURCES:
        for path in sorted((TOP / folder).rglob("*")):
            relative = str(path.relative_to(TOP))
            if path.is_file() and path.suffix not in WITHOUT_A_LINE and not relative.startswith(CAPTURED):
                yield path


def methods() -> set[tuple[str, str]]:
    root = ElementTree.parse(XML).getroot()
    return {
        (interface.get("name", ""), method.get("name", ""))
        for interface in root.findall("interface")
        for method in interface.findall("method")
    }


def test_every_source_file_says_its_license() -> None:
    silent = [
        str(path.relative_to(TOP))
        for path in sources()
        if "SPDX-License-Identifier: LGPL-2.1-or-later" not in path.read_text(errors="replace")[:400]
    ]
    assert not silent


def test_every_python_file_begins_alike() -> None:
    for path in sources():
        if path.suffix == ".py" and not path.read_text().startswith("#!"):
            assert path.read_text().startswith("# SPDX-License-Identifier: LGPL-2.1-or-later\n"), path


def test_the_table_of_who_may_has_every_method_and_no_other() -> None:
    assert set(guard.RULES) == methods()


def test_every_action_of_the_table_is_in_the_policy_and_the_other_way_round() -> None:
    policy = ElementTree.parse(TOP / "data/org.nestd1.policy")
    known = {action.get("id") for action in policy.findall("action")}
    assert known == {guard.SET_RUNTIME, guard.SET_BOOT, guard.LAUNCH, guard.LAUNCH_RAW, guard.MANAGE_GUESTS}


@pytest.mark.parametrize("values", [DriverState, Extension, GuestState, Nesting, Obstacle, Policy, Scope])
def test_the_interface_lists_every_word_of_a_closed_choice(values: type[StrEnum]) -> None:
    text = XML.read_text()
    assert [word.value for word in values if word.value and f'"{word.value}"' not in text] == []


def test_who_may_write_the_command_line_is_the_same_everywhere() -> None:
    """What the option loader takes: as it is checked, offered, told, and as the back ends are called."""
    assert arguments.LOADERS == boundary.LOADERS
    assert {loader.name for loader in choose.every()} == set(boundary.LOADERS)
    assert set(settings.KEYS["Boot"]["Loader"]) == {"auto", *boundary.LOADERS}
    page = (TOP / "data/nestd.8").read_text()
    listed = page.partition("names one:\n")[2].partition("\n.El")[0]
    assert tuple(re.findall(r"^\.It Cm (\S+)$", listed, re.MULTILINE)) == boundary.LOADERS
    for completion in (TOP / "data/completions").iterdir():
        assert " ".join(boundary.LOADERS) in completion.read_text(), completion.name
    text = XML.read_text()
    assert [name for name in boundary.LOADERS if f'"{name}"' not in text] == []


def all_errors(base: type[errors.BusError]) -> Iterator[type[errors.BusError]]:
    for one in base.__subclasses__():
        yield one
        yield from all_errors(one)


def test_each_error_has_its_own_name_after_its_class() -> None:
    names = {one.__name__: one.name for one in all_errors(errors.BusError)}
    assert len(set(names.values())) == len(names)
    prefixes = ("org.nestd1.Error.", "org.freedesktop.DBus.Error.")
    for name, bus_name in names.items():
        assert bus_name in [prefix + name for prefix in prefixes]


def test_each_error_of_our_own_is_in_the_interface() -> None:
    text = XML.read_text()
    own = [one for one in all_errors(errors.BusError) if one.name.startswith("org.nestd1.")]
    assert own
    assert [one.__name__ for one in own if one.__name__ not in text] == []
