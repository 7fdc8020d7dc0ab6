# SPDX-License-Identifier: LGPL-2.1-or-later
"""data/nestctl.schema.json: it is valid and whole, and what nestctl --json prints is as it says."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from jsonschema import Draft202012Validator, ValidationError

from nestd.ctl import arguments, events
from nestd.guestmodel import GuestState
from nestd.guests.lab import LabState
from nestd.guests.life import POWER_BUTTON, UNIT
from nestd.model import DriverState, Extension, Nesting, Obstacle, Policy, Scope, Verdict
from tests.ctl.printed import Printed, everything
from tests.ctl.running import Fake

DATA = Path(__file__).parents[2] / "data"
SCHEMA = json.loads((DATA / "nestctl.schema.json").read_text())
DEFINITIONS: dict[str, Any] = SCHEMA["$defs"]
ENTRIES = {
    part["title"].removeprefix("nestctl ").removesuffix(" --json"): name
    for name, part in DEFINITIONS.items()
    if "title" in part
}

OWN: dict[tuple[str, str], type[StrEnum]] = {
    ("status", "extension"): Extension,
    ("status", "driver-state"): DriverState,
    ("status", "nested"): Nesting,
    ("status", "nested-at-boot"): Nesting,
    ("status", "policy"): Policy,
    ("status", "pending-scope"): Scope,
    ("status", "obstacle"): Obstacle,
    ("check", "verdict"): Verdict,
    ("change", "nested"): Nesting,
    ("change", "nested-at-boot"): Nesting,
    ("guest-values", "state"): GuestState,
    ("lab-values", "state"): LabState,
    ("event-drift", "actual"): Nesting,
}
ASKED = {one.value for one in Nesting if one is not Nesting.UNSUPPORTED}
CHANGES = {"enable", "disable", "revert"}
# Of every closed choice, the values.
CLOSED: dict[tuple[str, str], set[str]] = {
    **{where: {one.value for one in values} for where, values in OWN.items()},
    ("status", "pending-change"): {"", *ASKED},
    ("event-drift", "expected"): ASKED,
    ("event-property-changed", "property"): set(events._PROPERTIES),
    ("event-module", "action"): {"add", "remove"},
    ("job", "operation"): CHANGES,
    ("event-job-started", "operation"): CHANGES,
    ("event-job-progress", "operation"): CHANGES,
    ("event-job-ended", "operation"): CHANGES,
    ("guest-values", "stopping"): {"", POWER_BUTTON, UNIT},
    ("proof", "level"): {"", "L1", "L2"},
}


def strict(part: Any) -> Any:
    """The schema in which nothing goes but what it describes."""
    if isinstance(part, list):
        return [strict(each) for each in part]
    if not isinstance(part, dict):
        return part
    made = {key: strict(value) for key, value in part.items()}
    return made | {"additionalProperties": False} if isinstance(made.get("properties"), dict) else made


def validator(command: str, definitions: dict[str, Any]) -> Draft202012Validator:
    """Of the entry of one command."""
    return Draft202012Validator({"$ref": f"#/$defs/{ENTRIES[command]}", "$defs": definitions})


def reading(part: argparse.ArgumentParser, name: str = "") -> Iterator[str]:
    """Every command that takes --json, also those of commands."""
    for action in part._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, below in action.choices.items():
                yield from reading(below, f"{name} {word}".strip())
    if name and "--json" in part._option_string_actions:
        yield name


def properties_of(interface: str) -> set[str]:
    """Those of the XML, as keys."""
    found = ElementTree.parse(DATA / "org.nestd1.xml").findall(f"interface[@name='{interface}']/property")
    names = [one.get("name", "") for one in found]
    return {"".join(f"-{x.lower()}" if x.isupper() else x for x in name)[1:] for name in names}


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["anyOf"] == [{"$ref": f"#/$defs/{name}"} for name in ENTRIES.values()]


def test_every_command_that_prints_json_has_its_entry_and_no_other() -> None:
    assert sorted(reading(arguments.parser())) == sorted(ENTRIES)
    for command in ENTRIES:
        words = [*command.split(), *["x"] * (command.split()[-1] in ("launch", "show", "create"))]
        assert arguments.parse(["--json", *words]).json is True


def test_every_part_is_used_and_every_key_described() -> None:
    text = json.dumps(SCHEMA)
    for name, part in DEFINITIONS.items():
        assert f'"#/$defs/{name}"' in text, name
        assert part["description"].endswith("."), name
        for key, about in part.get("properties", {}).items():
            assert about["description"].endswith("."), (name, key)
            assert about.keys() & {"type", "$ref", "const"}, (name, key)
        if "properties" in part:
            assert set(part.get("required", ())) <= set(part["properties"]), name


def test_closed_choices_are_the_codes_own() -> None:
    told = {
        (name, key): about["enum"]
        for name, part in DEFINITIONS.items()
        for key, about in part.get("properties", {}).items()
        if "enum" in about
    }
    assert {where: set(values) for where, values in told.items()} == CLOSED
    assert all(len(values) == len(set(values)) for values in told.values())
    assert json.dumps(SCHEMA).count('"enum"') == len(told)


@pytest.mark.parametrize(("part", "interface"), [("guest", "org.nestd1.Guest"), ("lab", "org.nestd1.Lab")])
def test_objects_have_the_keys_of_the_interface(part: str, interface: str) -> None:
    keys = properties_of(interface)
    assert set(DEFINITIONS[f"{part}-values"]["properties"]) == set(DEFINITIONS[part]["required"]) == keys


def test_each_event_is_called_what_it_says() -> None:
    named = {
        f"event-{part['properties']['event']['const']}"
        for name, part in DEFINITIONS.items()
        if name.startswith("event-")
    }
    assert [part["$ref"].removeprefix("#/$defs/") for part in DEFINITIONS["watch"]["oneOf"]] == [
        name for name in DEFINITIONS if name.startswith("event-")
    ]
    assert named == {name for name in DEFINITIONS if name.startswith("event-")}


def test_the_status_has_every_property_of_the_manager() -> None:
    assert properties_of("org.nestd1.Manager") <= set(DEFINITIONS["status"]["required"])


@pytest.fixture(scope="module")
def printed(_fake: Fake, tmp_path_factory: pytest.TempPathFactory) -> Printed:
    return everything(_fake, tmp_path_factory.mktemp("machines"))


@pytest.mark.bus
@pytest.mark.parametrize("command", ENTRIES)
def test_what_is_printed_is_as_it_says(printed: Printed, command: str) -> None:
    assert printed[command], "it was not run"
    narrow = validator(command, strict(DEFINITIONS))
    for argv, values in printed[command]:
        errors = [f"{error.json_path}: {error.message}" for error in narrow.iter_errors(values)]
        assert errors == [], argv
        Draft202012Validator(SCHEMA).validate(values)


def keys(part: Any, values: Any, name: str) -> Iterator[tuple[str, str]]:
    """The keys that occur, each with the part of the schema that describes it."""
    if ref := part.get("$ref"):
        name = ref.removeprefix("#/$defs/")
        yield from keys(DEFINITIONS[name], values, name)
    elif "oneOf" in part:
        yield from keys({"$ref": f"#/$defs/event-{values['event']}"}, values, name)
    elif isinstance(values, list):
        for each in values:
            yield from keys(part["items"], each, name)
    elif isinstance(values, dict):
        for key in values.keys() & part.get("properties", {}).keys():
            yield name, key
            yield from keys(part["properties"][key], values[key], name)


@pytest.mark.bus
def test_every_key_was_seen(printed: Printed) -> None:
    """What nothing prints is not described either."""
    seen = {
        key
        for command, runs in printed.items()
        for _, values in runs
        for key in keys(DEFINITIONS[ENTRIES[command]], values, ENTRIES[command])
    }
    described = {(name, key) for name, part in DEFINITIONS.items() for key in part.get("properties", {})}
    # A change that is under way when watching begins has the keys of one that begins then.
    job, begun = (DEFINITIONS[name]["properties"] for name in ("job", "event-job-started"))
    assert job.items() <= begun.items()
    assert {(name, key) for name, key in described - seen if name != "job"} == set()


@pytest.mark.bus
def test_keys_may_be_added_and_none_taken_away(printed: Printed) -> None:
    _, values = printed["status"][0]
    lenient, narrow = validator("status", DEFINITIONS), validator("status", strict(DEFINITIONS))
    lenient.validate(values | {"of-a-later-version": 1})
    with pytest.raises(ValidationError, match="of-a-later-version"):
        narrow.validate(values | {"of-a-later-version": 1})
    with pytest.raises(ValidationError, match="boot-source"):
        lenient.validate({key: value for key, value in values.items() if key != "boot-source"})
