# SPDX-License-Identifier: LGPL-2.1-or-later
"""The bash completion, as bash itself runs it."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "data" / "completions" / "nestctl.bash"
TABLE = "NAME  STATE\ndemo  running\ndemo2  running\nodd$(touch${IFS}hurt)  running\n"


@pytest.fixture
def bin_with_nestctl(tmp_path: Path) -> Path:
    """A folder with a nestctl that knows two proper guests and a hostile one."""
    (tmp_path / "table").write_text(TABLE)
    tool = tmp_path / "nestctl"
    folder = shlex.quote(str(tmp_path))
    answers = {"list --all": "table ended", "list*": "table", "lab list": "labs"}
    cases = [
        f'"{words}") cd {folder}; cat {files} ;;' if "*" not in words else f"{words}) cat {folder}/{files} ;;"
        for words, files in answers.items()
    ]
    tool.write_text("\n".join(["#!/bin/sh", 'case "$1 $2" in', *cases, "esac", ""]))
    (tmp_path / "ended").write_text("gone  failed\n")
    (tmp_path / "labs").write_text("NAME  STATE\ntown  running\n")
    tool.chmod(0o755)
    return tmp_path


def complete(folder: Path, *words: str) -> list[str]:
    """What bash would offer for the last word."""
    line = " ".join(shlex.quote(word) for word in ("nestctl", *words))
    script = (
        f"source {shlex.quote(str(SCRIPT))}; COMP_WORDS=({line}); COMP_CWORD={len(words)}; "
        'set -u; _nestctl; [ ${#COMPREPLY[@]} = 0 ] || printf "%s\\n" "${COMPREPLY[@]}"'
    )
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        check=False,
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_the_commands_come_first(bin_with_nestctl: Path) -> None:
    assert complete(bin_with_nestctl, "s") == ["status", "show", "stop"]
    assert "--json" in complete(bin_with_nestctl, "--")


def test_each_command_has_its_options(bin_with_nestctl: Path) -> None:
    assert "--dry-run" in complete(bin_with_nestctl, "--no-ask-password", "enable", "--")
    assert "--dry-run" not in complete(bin_with_nestctl, "stop", "--")
    assert complete(bin_with_nestctl, "stop", "--t") == ["--timeout"]


@pytest.mark.parametrize("command", ["stop", "kill", "console"])
def test_guests_are_offered_by_name(bin_with_nestctl: Path, command: str) -> None:
    assert complete(bin_with_nestctl, command, "") == ["demo", "demo2"]
    assert complete(bin_with_nestctl, "show", "") == ["demo", "demo2", "gone"]  # it has ended lately
    assert not (bin_with_nestctl / "hurt").exists()


@pytest.mark.parametrize("verb", ["show", "start", "stop", "remove"])
def test_labs_are_offered_by_name(bin_with_nestctl: Path, verb: str) -> None:
    assert complete(bin_with_nestctl, "lab", verb, "") == ["town"]
    (bin_with_nestctl / "labs").write_text("No labs.\n")
    assert complete(bin_with_nestctl, "lab", verb, "") == []


def test_the_verbs_of_labs_have_their_options(bin_with_nestctl: Path) -> None:
    assert complete(bin_with_nestctl, "lab", "s") == ["show", "start", "stop"]
    assert complete(bin_with_nestctl, "lab", "create", "x", "--n") == ["--no-ask-password", "--nodes"]
    assert complete(bin_with_nestctl, "lab", "stop", "--t") == ["--timeout"]
    assert "--network" not in complete(bin_with_nestctl, "lab", "create", "--")


def test_no_guests_are_no_names(bin_with_nestctl: Path) -> None:
    (bin_with_nestctl / "table").write_text("No guests.\n")
    (bin_with_nestctl / "ended").write_text("")
    assert complete(bin_with_nestctl, "show", "") == []


def test_values_of_options(bin_with_nestctl: Path) -> None:
    assert complete(bin_with_nestctl, "enable", "--scope", "r") == ["runtime"]
    assert complete(bin_with_nestctl, "disable", "--loader", "=", "g") == ["grub", "grubby"]
    assert complete(bin_with_nestctl, "--bus", "=", "s") == ["system", "session"]
    assert complete(bin_with_nestctl, "--bus", "=") == ["system", "session"]
    assert "nestctl" in complete(bin_with_nestctl, "launch", "demo", "--kernel", "")
    assert complete(bin_with_nestctl, "launch", "demo", "--memory", "") == []
    assert complete(bin_with_nestctl, "launch", "demo", "--firmware", "=", "u") == ["uefi"]
    assert complete(bin_with_nestctl, "launch", "demo", "--network", "") == ["none", "user", "lab="]
    assert "nestctl" in complete(bin_with_nestctl, "launch", "demo", "--cdrom", "")


def test_what_is_offered_is_understood() -> None:
    """Every command and option of the command line is in the script, and no other."""
    import argparse

    from nestd.ctl.arguments import parser

    text = SCRIPT.read_text()

    def below(part: argparse.ArgumentParser) -> list[tuple[str, argparse.ArgumentParser]]:
        found = [action for action in part._actions if isinstance(action, argparse._SubParsersAction)]
        named = [each for action in found for each in action.choices.items()]
        return named + [deeper for _, each in named for deeper in below(each)]

    for command, part in below(parser()):
        assert command in text
        for action in part._actions:
            for option in action.option_strings:
                assert option in text or option == "-h", (command, option)
