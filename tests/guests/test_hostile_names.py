# SPDX-License-Identifier: LGPL-2.1-or-later
"""Names from the bus, in every place that they reach: a path, a unit, an argument, a line, a question."""

from __future__ import annotations

import json
import os
import re
import socket
from pathlib import Path

import pytest

from nestd import log
from nestd.bus.exported import Call
from nestd.bus.guard import RULES
from nestd.bus.manager import LaunchRequest, guest_path
from nestd.errors import InvalidArgs
from nestd.guestmodel import GuestSpec
from nestd.guests import places, request, sandbox
from nestd.guests.request import check_name, guest_spec
from nestd.host.accounts import Account
from nestd.host.units import unit_path
from nestd.model import Extension
from nestd.text import qemu
from nestd.wire import body

ALICE = Account("alice", 1001, 1001)
# The oddest names that a guest may have.
NAMES = ["a..b", "a-", "a--b", "0", "a.service", "nestd-guest-a.service", "A_.-", "x" * 40]
# What paths, kernel command lines and CPU names may hold that means something to somebody.
ODD = [
    "/d/a b",
    "/d/a,format=qcow2,file.driver=nbd",
    "/d/a,,b",
    "/d/\"quoted\" 'twice'",
    '/d/"},"driver":"nbd',
    "/d/$HOME ${PATH} $$",
    "/d/%h %n %% 100%",
    "/d/back\\slash\\x20\\",
    "/d/;reboot|&`id`#*?",
    "/d/-S -enable-kvm",
    "/d/../../etc/shadow",
    "/d/ü\u202e\U0001f600\ufeff",
    "/-/+/:/json:{}",
    "/d/nbd:unix:/run/x",
]
PLACES = [places.runtime, places.qmp, places.console, places.console_log, places.record]


@pytest.mark.parametrize("name", NAMES)
def test_a_guests_name_is_one_step_of_every_path_and_one_unit(name: str) -> None:
    check_name(name)
    for place in PLACES:
        path = place(name)
        assert os.path.normpath(path) == path
        assert any(
            path.startswith(f"{top}/") for top in (places.RUNTIME, places.CONSOLE_LOGS, places.REGISTRY)
        )
    unit = places.unit(name)
    assert re.fullmatch(r"nestd-guest-[A-Za-z0-9._-]+\.service", unit)
    assert places.name_of(unit) == name
    for path in (guest_path(name), unit_path(unit)):
        assert re.fullmatch(r"(/[A-Za-z0-9_]+)+", path)
    assert len({guest_path(other) for other in NAMES}) == len(NAMES)


@pytest.mark.parametrize(
    "name", ["", "..", "a/b", "a\n", "a@b", "%n", "$a", "a b", "a,b", "a=b", "a\\x2f", "ä", "-a"]
)
def test_any_other_name_is_refused_before_anything_else(name: str) -> None:
    with pytest.raises(InvalidArgs):
        guest_spec(name, "alice", {})


def quoted(option: str) -> dict[str, str]:
    """QEMU's reading of an option: commas part it unless they are doubled (qemu-option.c)."""
    parts = [part.replace("\0", ",") for part in option.replace(",,", "\0").split(",")]
    return {key: value for key, _, value in (part.partition("=") for part in parts)}


def spec_with(odd: str) -> GuestSpec:
    disks = [
        {"path": odd, "format": "raw"},
        {"path": odd, "format": "qcow2", "snapshot": True},
        {"path": odd, "format": "raw", "readonly": True},
    ]
    options = {"disks": disks, "kernel": odd, "initrd": odd, "append": odd, "cdrom": odd}
    return guest_spec("demo", "alice", options)


@pytest.mark.parametrize("odd", ODD)
def test_odd_paths_reach_qemu_as_they_are(odd: str) -> None:
    argv = qemu.arguments(spec_with(odd), Extension.SVM, "/run/x,y", "/log,z")
    plain = qemu.arguments(spec_with("/d/plain"), Extension.SVM, "/run/x,y", "/log,z")
    assert [value for value in argv if value.startswith("-")] == [
        value for value in plain if value.startswith("-")
    ]
    following = [(option, argv[at + 1]) for at, option in enumerate(argv[:-1])]
    nodes = [json.loads(value) for option, value in following if option == "-blockdev"]
    assert [node["file"] for node in nodes] == [
        {"driver": "file", "filename": odd, "read-only": readonly} for readonly in (False, True, True)
    ]
    [drive] = [quoted(value) for option, value in following if option == "-drive"]
    assert drive == {
        "if": "none",
        "id": "disk1",
        "format": "qcow2",
        "snapshot": "on",
        "read-only": "off",
        "file.driver": "file",
        "file.filename": odd,
    }
    for option in ("-kernel", "-initrd", "-append"):
        assert (option, odd) in following
    sockets = [quoted(value)["path"] for option, value in following if option == "-chardev"]
    assert sockets == ["/run/x,y/qmp", "/run/x,y/console"]


@pytest.mark.parametrize("odd", ODD)
def test_odd_paths_reach_the_unit_as_they_are(odd: str) -> None:
    argv = ["/usr/bin/qemu", *qemu.arguments(spec_with(odd), Extension.SVM, "/run/x", "/log")]
    made = sandbox.properties(spec_with(odd), ALICE, argv, kvm_group=True)
    got = {name: value.value for name, value in made}
    [[program, told, _]] = got["ExecStart"]
    assert program == "/usr/bin/qemu"
    assert [value.replace("$$", "$") for value in told] == argv
    assert all(len(run) % 2 == 0 for value in told for run in re.findall(r"\$+", value))
    # `-` is systemd's own mark; what follows is one path of the list, never a second.
    assert got["ReadWritePaths"] == [f"-{odd}", "/var/tmp"]
    assert not [
        name
        for name, value in got.items()
        if name not in {"ExecStart", "ReadWritePaths"} and odd in str(value)
    ]
    assert body.marshal("a(sv)", [[[name, value] for name, value in made]])


@pytest.mark.parametrize(
    "odd", ["a\nMESSAGE_ID=forged\nPRIORITY=0", "\x1b[2J\r\0\x85\u2028", "x" * 100_000, "\udcff"]
)
def test_odd_words_are_one_value_of_one_field(tmp_path: Path, odd: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "journal"))
        journal.settimeout(10)
        log.Journal(str(tmp_path / "journal")).write(6, odd, guest=odd)
        lines = journal.recv(1 << 20).decode().removesuffix("\n").split("\n")
    assert [line.partition("=")[0] for line in lines] == [
        "MESSAGE",
        "PRIORITY",
        "NESTD_GUEST",
        "SYSLOG_IDENTIFIER",
    ]
    assert all(line.isprintable() for line in lines)


def test_arguments_of_ones_own_stand_last_and_need_more() -> None:
    """Whoever adds them is asked for another action, whatever else the request is."""
    extra = ["-monitor", "stdio", "$HOME"]
    spec = guest_spec("demo", "", {"extra-args": extra})
    assert qemu.arguments(spec, Extension.SVM, "/run/x", "/log")[-3:] == extra
    call = Call(":1.1", "/org/nestd1", "org.nestd1.Manager", "Launch", ("demo", {}), True)
    for asked, action in ((spec, "org.nestd1.launch-raw"), (guest_spec("demo", "", {}), "org.nestd1.launch")):
        demand = RULES["org.nestd1.Manager", "Launch"](call, LaunchRequest(asked, ""), None)  # type: ignore[arg-type]
        assert demand.actions == (action,)


def test_polkit_is_asked_about_checked_names_alone() -> None:
    """The question holds the name that the request was checked for; the order is the dispatcher's."""
    call = Call(":1.1", "/org/nestd1", "org.nestd1.Manager", "Launch", ("demo", {}), True)
    asked = LaunchRequest(guest_spec("demo", "", {}), "")
    demand = RULES["org.nestd1.Manager", "Launch"](call, asked, None)  # type: ignore[arg-type]
    assert demand.details == {"guest": "demo"}
    with pytest.raises(InvalidArgs):
        request.guest_spec("demo\n<b>", "alice", {})
