# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command line: what is understood and what is refused."""

from __future__ import annotations

import argparse
import re
import subprocess
from argparse import ArgumentTypeError
from importlib import import_module
from pathlib import Path

import pytest

from nestd.ctl import __main__, arguments, argumenttypes, examples, guesttypes
from tests.ctl.running import NESTCTL, TOP


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("1000", 1000), ("4K", 4096), ("512M", 512 << 20), ("2g", 2 << 30), ("1T", 1 << 40)],
)
def test_sizes(text: str, value: int) -> None:
    assert argumenttypes.size(text) == value


@pytest.mark.parametrize(
    "text", ["", "M", "-1", "0", "0G", "1.5G", "2GiB", "5X", "٣", "20000000T", "1 M", "+1"]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ArgumentTypeError):
        argumenttypes.size(text)


@pytest.mark.parametrize("text", ["", "0", "-1", "4294967296", "two", "²"])
def test_what_is_no_count(text: str) -> None:
    with pytest.raises(ArgumentTypeError):
        argumenttypes.count(text)


def test_a_disk() -> None:
    assert argumenttypes.disk("path=a,,b.img,format=raw,readonly,snapshot=off") == {
        "path": "a,b.img",
        "format": "raw",
        "readonly": True,
        "snapshot": False,
    }
    assert argumenttypes.disk("format=qcow2,path=/x")["path"] == "/x"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gone", "x: the folder that it is relative to is gone: write it from the root"),
        ("\udcff", "is not UTF-8"),
    ],
)
def test_a_folder_that_no_path_can_begin_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, words: str
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.chdir(folder)
    if name == "gone":
        folder.rmdir()
    assert arguments.parse(["launch", "demo", "--cdrom=/x"]).cdrom == "/x"
    with pytest.raises(SystemExit):
        arguments.parse(["launch", "demo", "--cdrom=x"])
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "path=x",
        "format=raw",
        "path=,format=raw",
        "path=x,format=vmdk",
        "path=x,format=raw,cache=none",
        "path=x,format=raw,readonly=maybe",
        "path=\udcff,format=raw",
    ],
)
def test_what_is_no_disk(text: str) -> None:
    with pytest.raises(ArgumentTypeError):
        argumenttypes.disk(text)


def test_nothing_is_status() -> None:
    given = arguments.parse([])
    assert (given.command, given.bus, given.ask, given.json) == ("status", "system", True, False)


def test_common_options_stand_anywhere() -> None:
    before = arguments.parse(["--json", "--bus=session", "--no-ask-password", "list"])
    behind = arguments.parse(["list", "--json", "--bus=session", "--no-ask-password"])
    assert vars(before) == vars(behind)
    assert (before.command, before.bus, before.ask, before.json) == ("list", "session", False, True)


def test_a_launch_in_full() -> None:
    line = (
        "launch demo --cpu qemu64 --cpu-feature +avx2 --cpu-feature=-x2apic --memory 2G --vcpus 2 "
        "--disk path=/d,format=raw --kernel /k --initrd /i --append quiet --user u --allow-no-nesting"
    )
    given = arguments.parse(line.split())
    assert (given.name, given.cpu, given.features) == ("demo", "qemu64", ["+avx2", "-x2apic"])
    assert (given.memory, given.vcpus, given.disks) == (2 << 30, 2, [{"path": "/d", "format": "raw"}])
    assert (given.kernel, given.initrd, given.append, given.user) == ("/k", "/i", "quiet", "u")
    assert given.allow_no_nesting is True


def test_a_launch_with_devices(tmp_path: Path) -> None:
    (tmp_path / "me.yaml").write_bytes(b"#cloud-config\n\xff")
    line = (
        "launch demo --cdrom /c.iso --firmware uefi --forward 2222-22 --forward udp:0.0.0.0:5353-53 --vnc "
        f"--user-data {tmp_path}/me.yaml --extra-arg=-rtc --extra-arg base=utc"
    )
    given = arguments.parse(line.split())
    assert (given.cdrom, given.firmware, given.vnc) == ("/c.iso", "uefi", True)
    assert (given.network, given.forwards) == (None, ["tcp:2222-22", "udp:0.0.0.0:5353-53"])
    assert given.user_data == b"#cloud-config\n\xff"
    assert given.extra_args == ["-rtc", "base=utc"]


@pytest.mark.parametrize(
    ("text", "value"),
    [("none", {"kind": "none"}), ("user", {"kind": "user"}), ("lab=two", {"kind": "lab", "lab": "two"})],
)
def test_networks(text: str, value: dict[str, str]) -> None:
    assert guesttypes.network(text) == value


@pytest.mark.parametrize("text", ["", "lab", "lab=", "bridge", "user=x", "none,user"])
def test_what_is_no_network(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="write none, user or lab=NAME"):
        guesttypes.network(text)


@pytest.mark.parametrize(
    "text", ["", "22", "-22", "22-", "x:1-1", "sctp:1-1", "tcp:", "1-1,2-2", "[::1]:1-1"]
)
def test_what_is_no_forward(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="such as 2222-22"):
        guesttypes.forward(text)


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "cannot be read: No such file"), (0, "is empty"), ((512 << 10) + 1, "512 KiB")],
)
def test_user_data_that_cannot_be(tmp_path: Path, content: int | None, words: str) -> None:
    path = tmp_path / "data"
    if content is not None:
        path.write_bytes(bytes(content))
    with pytest.raises(ArgumentTypeError, match=words):
        guesttypes.user_data(str(path))


def test_user_data_of_a_standard_input_that_is_closed() -> None:
    done = subprocess.run(
        ["sh", "-c", '"$@" <&-', "sh", *NESTCTL, "launch", "demo", "--user-data", "-"],
        cwd=TOP,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "--user-data: standard input is closed" in done.stderr


@pytest.mark.parametrize(
    ("scope", "value"),
    [([], "both"), (["--runtime"], "runtime"), (["--boot"], "boot"), (["--scope=boot"], "boot")],
)
def test_scopes(scope: list[str], value: str) -> None:
    assert arguments.parse(["enable", *scope]).scope == value


def test_what_is_said_of_the_command_line() -> None:
    plain, full = (arguments.parse(["disable", *more]) for more in ([], ["--replace", "--loader", "grub"]))
    assert (plain.replace, plain.loader) == (False, "")
    assert (full.replace, full.loader, full.scope) == (True, "grub", "both")


def test_a_revert() -> None:
    given = arguments.parse(["revert", "--dry-run", "--json"])
    assert (given.command, given.dry_run, given.json) == ("revert", True, True)
    assert arguments.parse(["revert"]).dry_run is False


@pytest.mark.parametrize(
    "line",
    [
        "frobnicate",
        "show",
        "show a b",
        "status --dry-run",
        "stop demo --json",
        "--json kill demo",
        "enable --runtime --boot",
        "enable --scope=now",
        "enable --dry",
        "enable --loader=lilo",
        "enable --loader=",
        "revert --scope=boot",
        "revert --replace",
        "revert now",
        "stop demo --timeout=-1",
        "stop demo --timeout=1.5",
        "stop demo --timeout=86401",
        "launch demo --initrd /i",
        "launch demo --append quiet",
        "launch demo --kernel=",
        "launch demo --memory lots",
        "launch demo --json --console",
        "launch demo --firmware=UEFI",
        "launch demo --network=bridge",
        "launch demo --network=none --forward 2222-22",
        "launch demo --network=lab=two --forward 2222-22",
        "launch demo --forward 22",
        "launch demo --user-data /nowhere/at/all",
        "launch demo --extra-arg -rtc",
        "show \udcff",
    ],
)
def test_usage_errors(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        arguments.parse(line.split())
    assert ended.value.code == 2
    assert "nestctl" in capsys.readouterr().err


def test_help_tells_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        arguments.parse(["--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert arguments.EXIT_CODES in out
    assert "5  in use" in out


@pytest.mark.parametrize(
    "command", ["status", "enable", "revert", "launch", "list", "show", "stop", "kill", "console"]
)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        arguments.parse([command, "--help"])
    assert ended.value.code == 0
    assert "--no-ask-password" in capsys.readouterr().out


def test_each_command_is_somewhere() -> None:
    def below(part: argparse.ArgumentParser, name: str = "") -> list[str]:
        found = [x.choices for x in part._actions if isinstance(x, argparse._SubParsersAction)]
        named = [
            each
            for choices in found
            for word, one in choices.items()
            for each in below(one, f"{name} {word}")
        ]
        return named or [name.strip()]

    assert sorted(below(arguments.parser())) == sorted(__main__.COMMANDS)
    for where in __main__.COMMANDS.values():
        module, _, name = where.partition(":")
        assert callable(getattr(import_module(f"nestd.ctl.{module}"), name))


def test_the_commonest_call_is_understood_as_the_parser_would() -> None:
    for argv in ([], ["status"]):
        assert vars(__main__._parse(argv)) == vars(arguments.parse(argv))


@pytest.mark.parametrize("command", ["lab", *filter(examples.of, __main__.COMMANDS)])
def test_the_examples_of_help_are_understood(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("me.yaml", "node.yaml"):
        (tmp_path / name).write_text("#cloud-config\n")
    shown = examples.of(command)
    with pytest.raises(SystemExit):
        arguments.parse([command, "--help"])
    assert shown in capsys.readouterr().out
    lines = shown.replace("\\\n", " ").splitlines()
    assert all(len(line) <= 80 for line in shown.splitlines())
    for found in filter(
        None, (re.search(r"nestctl ((?:[^ |)]+ {0,2}| {6}(?=--))+)", line) for line in lines)
    ):
        assert arguments.parse(found[1].split()).command.startswith(("console", "lab", command))
