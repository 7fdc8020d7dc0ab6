# SPDX-License-Identifier: LGPL-2.1-or-later
"""The completions for bash, fish and zsh, as the shells themselves run them."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nestd.ctl import arguments
from tests.ctl.completing import TABLES, Place, furnish, program
from tests.ctl.running import LIMIT, TOP, Fake
from tests.ctl.shells import COMPLETIONS, Shell
from tests.support.privatebus import PrivateBus

SHELLS = ("bash", "fish", "zsh")
BASH_COMPLETION = "source /usr/share/bash-completion/bash_completion"


@pytest.fixture(scope="module", params=SHELLS)
def _place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("home")
    furnish(folder)
    with Shell(request.param, folder, os.environ, BASH_COMPLETION) as shell:
        yield Place(shell, folder)


@pytest.fixture
def place(_place: Place) -> Iterator[Place]:
    """As furnished, and nothing asked yet."""
    _place.calls()
    yield _place
    assert not (_place.folder / "hurt").exists()
    for words, table in TABLES.items():
        _place.say(words, table)


def below(part: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command, also those of commands, and before them nestctl itself."""
    yield name, part
    for action in part._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, deeper in action.choices.items():
                yield from below(deeper, f"{name} {word}".strip())


COMMANDS = dict(below(arguments.parser()))


def commands_of(part: argparse.ArgumentParser) -> list[str]:
    found = [action for action in part._actions if isinstance(action, argparse._SubParsersAction)]
    return sorted(word for action in found for word in action.choices)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_offers_its_options_and_no_other(place: Place, name: str) -> None:
    options = [x for x in COMMANDS[name]._option_string_actions if x.startswith("--")]
    assert place.shell.offers(f"{name} --".lstrip()) == sorted(options)


@pytest.mark.parametrize("name", ["", "lab"])
def test_each_command_is_offered(place: Place, name: str) -> None:
    offered = place.shell.offers(f"{name} ".lstrip())
    assert [word for word in offered if not word.startswith("-")] == commands_of(COMMANDS[name])
    assert place.shell.offers(f"{name} s".lstrip()) == [
        word for word in commands_of(COMMANDS[name]) if word.startswith("s")
    ]


def test_options_before_the_command(place: Place) -> None:
    for before in ("--no-ask-password", "-H lab", "--host=lab", "-M root@show", "--bus list", "-H me@lab:22"):
        assert "--dry-run" in place.shell.offers(f"{before} enable --"), before
        assert place.shell.offers(f"{before} lab s") == ["show", "start", "stop"], before


CHOICES = [
    (name, option, tuple(action.choices))
    for name, part in COMMANDS.items()
    for option, action in part._option_string_actions.items()
    if action.choices and option.startswith("--")
]


@pytest.mark.parametrize(("name", "option", "choices"), CHOICES)
def test_what_an_option_takes_is_offered(
    place: Place, name: str, option: str, choices: tuple[str, ...]
) -> None:
    assert {"--scope", "--loader", "--firmware"} <= {option for _, option, _ in CHOICES}
    line = name.replace("launch", "launch demo").replace("create", "create town")
    assert place.shell.offers(f"{line} {option} ") == sorted(choices)
    assert place.shell.offers(f"{line} {option}={choices[1][:1]}") == sorted(
        word for word in choices if word.startswith(choices[1][:1])
    )


def test_other_values(place: Place) -> None:
    offers = place.shell.offers
    assert offers("--bus ") == offers("--bus=") == ["session", "system"]
    assert offers("launch demo --network ") == ["lab=", "none", "user"]
    assert "games" in offers("launch demo --user ")
    own = ("cpu", "cpu-feature", "memory", "vcpus", "disk", "append", "forward", "escape", "extra-arg")
    for option in own:
        assert offers(f"launch demo --{option} ") == [], option
    assert offers("verify --timeout ") == offers("lab create x --subnet ") == []


@pytest.mark.parametrize("option", ["kernel", "initrd", "cdrom", "user-data"])
def test_files(place: Place, option: str) -> None:
    assert "machinectl" in place.shell.offers(f"launch demo --{option} ma")
    assert "machinectl" in place.shell.offers(f"lab create town --{option}=ma")


def test_guests_are_offered_by_name(place: Place) -> None:
    for command in ("stop", "kill", "console"):
        assert place.shell.offers(f"{command} ") == ["demo", "demo2"]
    assert place.shell.offers("show ") == ["demo", "demo2", "gone"]  # it has ended lately
    asked = ["list --no-ask-password"] * 3 + ["list --all --no-ask-password"]
    assert place.calls() == asked


def test_labs_are_offered_by_name(place: Place) -> None:
    for verb in ("show", "start", "stop", "remove"):
        assert place.shell.offers(f"lab {verb} ") == ["town"]
    assert place.shell.offers("lab --no-ask-password show t") == ["town"]
    place.say("lab list", "No labs.\n")
    assert place.shell.offers("lab show ") == []


def test_no_guests_are_no_names(place: Place) -> None:
    place.say("list", "No guests.\n")
    assert place.shell.offers("stop ") == []


def test_a_new_name_is_ones_own(place: Place) -> None:
    assert place.shell.offers("launch d") == place.shell.offers("lab create t") == []
    assert place.calls() == []


def test_completing_starts_nothing(place: Place) -> None:
    (place.folder / "owned").unlink()
    try:
        assert place.shell.offers("show ") == place.shell.offers("lab show ") == []
    finally:
        (place.folder / "owned").touch()
    assert place.calls() == []


@pytest.mark.parametrize("where", ["-H far", "-Hfar", "--host=far", "-M web", "--machine web", "--bus=x"])
def test_who_is_elsewhere_is_not_asked(place: Place, where: str) -> None:
    assert place.shell.offers(f"{where} show ") == place.shell.offers(f"show {where} ") == []
    assert place.calls() == []


def test_a_nestd_that_is_stuck_stops_nobody(place: Place) -> None:
    (place.folder / "stuck").touch()
    try:
        assert place.shell.offers("stop ") == []
    finally:
        (place.folder / "stuck").unlink()
    assert place.calls() == ["list --no-ask-password"]
    assert place.shell.offers("stop ") == ["demo", "demo2"]


def test_hosts_that_ssh_knows(place: Place) -> None:
    for option in ("-H ", "--host ", "--host=", "status --host "):
        assert place.shell.offers(f"{option}fa") == ["far.example"], option
        found = [word.removeprefix("root@") for word in place.shell.offers(f"{option}root@fa")]
        assert found == ["far.example"], option


def test_hosts_without_the_helpers_of_bash(tmp_path: Path) -> None:
    furnish(tmp_path)
    (tmp_path / "hosts").write_text("127.0.0.9 far.example\n")
    with Shell("bash", tmp_path, {**os.environ, "HOSTFILE": str(tmp_path / "hosts")}) as shell:
        for option in ("-H ", "-H root@", "--host=", "status --host=root@"):
            assert shell.offers(f"{option}fa") == ["far.example"], option
        for option in ("-M ", "-M root@", "--machine=", "status --machine=root@"):
            assert shell.offers(f"{option}we") == ["web"], option
        assert shell.offers("--host root@lab:22 stop ") == shell.offers("stop -H root@lab ") == []
        assert shell.offers("-H root@lab:22/box lab s") == ["show", "start", "stop"]


def test_machines(place: Place) -> None:
    for option in ("-M ", "--machine ", "--machine=", "status -M "):
        assert place.shell.offers(option) == ["web", "work"], option
        assert place.shell.offers(f"{option}we") == ["web"], option
        found = [word.removeprefix("root@") for word in place.shell.offers(f"{option}root@we")]
        assert found == ["web"], option


@pytest.mark.bus
@pytest.mark.parametrize("name", SHELLS)
def test_the_real_programs(name: str, fake: Fake, tmp_path: Path) -> None:
    program(tmp_path, "nestctl", f'PYTHONPATH={TOP} exec {sys.executable} -m nestd.ctl "$@"')
    with Shell(name, tmp_path, fake.environment) as shell:
        assert shell.offers("show ") == ["demo", "gone"]
        assert shell.offers("lab stop ") == ["town"]
    assert {call["interactive"] for call in fake.calls()} == {False}


@pytest.mark.bus
@pytest.mark.parametrize("name", SHELLS)
def test_the_real_bus_starts_nothing(name: str, tmp_path: Path) -> None:
    program(tmp_path, "nestctl", f'PYTHONPATH={TOP} exec {sys.executable} -m nestd.ctl "$@"')
    program(tmp_path, "service", "touch started")
    services = tmp_path / "services"
    services.mkdir()
    said = f"[D-BUS Service]\nName=org.nestd1\nExec={tmp_path}/service\nUser=root\n"
    (services / "org.nestd1.service").write_text(said)
    with PrivateBus(policies=[TOP / "data/org.nestd1.conf"], services=[services]) as bus:
        with Shell(name, tmp_path, bus.environment) as shell:
            assert shell.offers("show ") == []
        assert not (tmp_path / "started").exists()
        # It would have been: who calls it starts it.
        bus.complaints_expected = True
        ping = ("org.nestd1", "/org/nestd1", "org.freedesktop.DBus.Peer", "Ping")
        deadline = time.monotonic() + LIMIT
        while not (tmp_path / "started").exists():
            assert time.monotonic() < deadline
            call = ["busctl", "--timeout=1", "call", *ping]
            subprocess.run(call, check=False, env=bus.environment, capture_output=True)


@pytest.mark.parametrize(
    "lint",
    [
        ["bash", "-n", "nestctl.bash"],
        ["shellcheck", "--shell=bash", "nestctl.bash"],
        ["fish", "--no-config", "--no-execute", "nestctl.fish"],
        ["zsh", "-f", "-n", "_nestctl"],
    ],
)
def test_lint(lint: list[str]) -> None:
    done = subprocess.run(lint, check=False, cwd=COMPLETIONS, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
