# SPDX-License-Identifier: LGPL-2.1-or-later
"""data/: each file is what its reader takes, and they all speak of the same interface."""

from __future__ import annotations

import argparse
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from nestd import errors
from nestd.ctl import arguments
from nestd.host import configuration
from nestd.model import Obstacle
from nestd.text import settings
from tests.support.clients import ALICE, BOB, DBUS, NAME, NOBODY, PATH, ROOT, CallError, Client
from tests.support.privatebus import Kind, PrivateBus

from dbus_next.constants import MessageType  # isort: skip  # the clients loaded it without its GLib half
from dbus_next.message import Message  # isort: skip

DATA = Path(__file__).parents[1] / "data"
DTDS = Path("/usr/share")

ADMIN = "auth_admin"
KEEP = "auth_admin_keep"
# any, inactive, active; and the details that the message shows.
ACTIONS = {
    "org.nestd1.set-runtime": ((ADMIN, ADMIN, KEEP), {"nested"}),
    "org.nestd1.set-boot": ((ADMIN, ADMIN, ADMIN), {"nested"}),
    "org.nestd1.launch": ((ADMIN, ADMIN, KEEP), {"guest"}),
    "org.nestd1.launch-raw": ((ADMIN, ADMIN, ADMIN), {"guest"}),
    "org.nestd1.manage-guests": ((ADMIN, ADMIN, KEEP), {"guest"}),
}
INTERFACES = (
    "org.nestd1.Manager",
    "org.nestd1.Guest",
    "org.nestd1.Lab",
    "org.freedesktop.DBus.Introspectable",
    "org.freedesktop.DBus.ObjectManager",
    "org.freedesktop.DBus.Peer",
    "org.freedesktop.DBus.Properties",
)
MEMBERS = [
    (interface.get("name", ""), member.tag, member.get("name", ""), member.get("type", ""))
    for interface in ElementTree.parse(DATA / "org.nestd1.xml").iter("interface")
    for member in interface
    if member.tag in ("method", "signal", "property")
]


def run(*argv: str | Path) -> str:
    """Everything a tool says; it must end with 0."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "dtd"),
    [
        ("org.nestd1.xml", "xml/dbus-1/introspect.dtd"),
        ("org.nestd1.policy", "polkit-1/policyconfig-1.dtd"),
    ],
)
def test_xml_is_valid(file: str, dtd: str) -> None:
    assert run("xmllint", "--nonet", "--noout", "--dtdvalid", DTDS / dtd, DATA / file) == ""


def test_polkit_actions_and_their_defaults() -> None:
    actions = {
        action.get("id"): tuple(
            action.findtext(f"defaults/allow_{who}") for who in ("any", "inactive", "active")
        )
        for action in ElementTree.parse(DATA / "org.nestd1.policy").iter("action")
    }
    assert actions == {name: defaults for name, (defaults, _) in ACTIONS.items()}


def test_polkit_messages_use_the_details_that_are_passed() -> None:
    for action in ElementTree.parse(DATA / "org.nestd1.policy").iter("action"):
        used = set(re.findall(r"\$\((\w+)\)", action.findtext("message", "")))
        assert used == ACTIONS[action.get("id", "")][1]


def test_the_interface_names_every_action_and_no_other() -> None:
    named = re.findall(r"org\.nestd1\.[a-z]+(?:-[a-z]+)*", (DATA / "org.nestd1.xml").read_text())
    assert set(named) - {"org.nestd1.policy"} == set(ACTIONS)


def request_name(client: Client, name: str = NAME) -> int:
    [answer] = client.call("RequestName", "su", [name, 4], destination=DBUS, path="/", interface=DBUS)
    return int(answer)


@pytest.fixture(params=Kind)
def bus(request: pytest.FixtureRequest) -> Iterator[PrivateBus]:
    with PrivateBus(policies=[DATA / "org.nestd1.conf"], kind=request.param) as bus:
        assert bus.complaints() == ""
        bus.complaints_expected = True  # each refusal is one
        yield bus


@pytest.mark.parametrize("uid", [ALICE, BOB, NOBODY])
def test_only_root_may_own_the_name(bus: PrivateBus, uid: int) -> None:
    with Client(bus.address, uid) as client, pytest.raises(CallError, match="AccessDenied"):
        request_name(client)
    with Client(bus.address, ROOT) as root, Client(bus.address, uid) as client:
        assert request_name(root) == 1
        with pytest.raises(CallError, match="AccessDenied"):
            request_name(client)  # not as a successor either
        assert client.owner_of(NAME) == root.unique_name


# dbus-broker 33 lets root, and only root, have names below it, too.
@pytest.mark.parametrize(
    ("uid", "name"),
    [(ALICE, "org.nestd1.Manager"), (ALICE, "org.nestd"), (ROOT, "org.nestd"), (ROOT, "org.nestd2")],
)
def test_no_other_name_is_given_away(bus: PrivateBus, uid: int, name: str) -> None:
    with Client(bus.address, uid) as client, pytest.raises(CallError, match="AccessDenied"):
        request_name(client, name)


@pytest.mark.parametrize("uid", [ALICE, NOBODY, ROOT])
def test_what_the_bus_lets_through(bus: PrivateBus, uid: int) -> None:
    with Client(bus.address, ROOT) as owner, Client(bus.address, uid) as caller:
        request_name(owner)
        for interface in INTERFACES:
            caller.send("Anything", interface=interface, no_reply=True)
            assert owner.incoming("Anything").interface == interface
        for interface in ("org.nestd1.Job", "org.nestd1", "org.freedesktop.DBus", "org.example.Other"):
            with pytest.raises(CallError, match="AccessDenied"):
                caller.call("Anything", interface=interface)
        without = caller.send_message(Message(NAME, PATH, member="Anything"))
        with pytest.raises(CallError, match="AccessDenied"):
            caller.reply(without)
        # By its unique name it is the same connection.
        with pytest.raises(CallError, match="AccessDenied"):
            caller.call("Anything", destination=owner.unique_name, interface="org.example.Other")
        assert owner.calls_so_far() == []


def test_every_call_allowed_leaves_the_bus_without_a_word() -> None:
    """The owner's signals, replies and errors get through, too: nothing in either bus's log."""
    for kind in Kind:
        with PrivateBus(policies=[DATA / "org.nestd1.conf"], kind=kind) as bus:
            with Client(bus.address, ROOT) as owner, Client(bus.address, NOBODY) as caller:
                request_name(owner)
                caller.subscribe()
                job = Message.new_signal(f"{PATH}/job/1", "org.nestd1.Job", "Completed", "bs", [True, ""])
                owner.send_message(job)
                assert caller.signal("Completed") == [True, ""]
                for interface in INTERFACES:
                    if not interface.endswith((".Peer", ".Introspectable")):  # they have no signals
                        owner.send_message(Message.new_signal(PATH, interface, "Happened", "s", [interface]))
                        assert caller.signal("Happened") == [interface]
                    good, bad = (caller.send("Anything", interface=interface) for _ in range(2))
                    owner.send_message(Message.new_method_return(owner.incoming("Anything"), "s", ["yes"]))
                    owner.send_message(Message.new_error(owner.incoming("Anything"), "a.b", "no"))
                    assert caller.reply(good) == ["yes"]
                    assert caller.failure(bad).name == "a.b"
            assert bus.complaints() == ""


def test_nobody_else_speaks_in_its_name(bus: PrivateBus) -> None:
    """A signal or a reply that looks like nestd's reaches nobody who listens to nestd or waits for it."""
    with (
        Client(bus.address, ROOT) as owner,
        Client(bus.address, ALICE) as listener,
        Client(bus.address, BOB) as liar,
    ):
        request_name(owner)
        listener.subscribe()
        call = listener.send("GetStatus")
        asked = owner.incoming("GetStatus")
        liar.send_message(Message.new_method_return(asked, "s", ["a lie"]))
        liar.send_message(Message.new_error(asked, "a.b", "a lie"))
        liar.send_message(Message.new_signal(PATH, "org.nestd1.Manager", "ModuleEvent", "ss", ["add", "lie"]))
        liar.owner_of(NAME)  # all of it is on its way now
        owner.send_message(
            Message.new_signal(PATH, "org.nestd1.Manager", "ModuleEvent", "ss", ["add", "kvm"])
        )
        owner.send_message(Message.new_method_return(asked, "s", ["the truth"]))
        assert listener.reply(call) == ["the truth"]
        assert listener.signal("ModuleEvent") == ["add", "kvm"]


def test_what_everybody_may_send_to_everybody_reaches_it_too(bus: PrivateBus) -> None:
    """Signals: the stock policy lets them through, so nestd has to do without (tests/attacks)."""
    with Client(bus.address, ROOT) as owner, Client(bus.address, NOBODY) as caller:
        request_name(owner)
        signal = Message(NAME, PATH, "a.b", "Boo", message_type=MessageType.SIGNAL)
        caller.send_message(signal)
        assert owner.signal("Boo") == []


def test_every_interface_of_the_xml_with_methods_may_be_called_and_no_other() -> None:
    called = {interface for interface, kind, *_ in MEMBERS if kind == "method"}
    assert called == {interface for interface in INTERFACES if interface.startswith("org.nestd1.")}


def test_the_unit_is_understood(tmp_path: Path) -> None:
    unit = tmp_path / "nestd.service"
    # The program is not installed here, and its path is proved by the package's test.
    unit.write_text((DATA / "nestd.service").read_text().replace("=/usr/sbin/nestd\n", "=/bin/true\n"))
    assert run("systemd-analyze", "verify", "--man=no", unit) == ""


def test_the_sandbox_gets_no_weaker() -> None:
    # The score is of systemd's own: 0 is closed, 10 is open, times ten here.
    run("systemd-analyze", "security", "--offline=yes", "--threshold=22", DATA / "nestd.service")


@pytest.mark.parametrize("path", ["notify-reload.conf", "after-nestd.conf"])
def test_the_drop_ins_say_only_this(path: str) -> None:
    """What is in them, for who looks here; that systemd follows it, tests/vm/test_service.py proves."""
    text = (DATA / path).read_text()
    said = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert (
        said
        == {
            "notify-reload.conf": ["[Service]", "Type=notify-reload", "ExecReload="],
            "after-nestd.conf": ["[Unit]", "After=nestd.service"],
        }[path]
    )


def test_every_key_of_nestd_conf_has_its_entry_and_no_other() -> None:
    page = (DATA / "nestd.conf.5").read_text()
    told = {}
    for section, text in re.findall(r"^\.Sh THE SECTION \[(\w+)\]\n(.*?)(?=^\.Sh )", page, re.M | re.S):
        entries = re.findall(r"^\.It Va (\w+) Ns = Ns Cm (.*)$", text, re.M)
        told[section] = {key: tuple(values.replace("| Ar ", "| ").split(" | ")) for key, values in entries}
        for key, values in told[section].items():
            assert f".It Va {key} " in text and f".Cm {values[0]} ,\nthe default," in text, key
    assert told == settings.KEYS


def test_nestd_conf_is_where_the_page_says() -> None:
    page = (DATA / "nestd.conf.5").read_text().split(".Sh DESCRIPTION")[0]
    paths = re.findall(r"^\.Pa (.*)$", page, re.M)
    assert paths == [configuration.FILE, *(f"{folder}/*.conf" for folder in configuration.FOLDERS)]


def test_activation_starts_the_unit() -> None:
    lines = (DATA / "org.nestd1.service").read_text().splitlines()
    assert {f"Name={NAME}", "SystemdService=nestd.service", "Exec=/bin/false"} <= set(lines)
    assert f"BusName={NAME}" in (DATA / "nestd.service").read_text().splitlines()


def test_the_user_of_guests(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    run("systemd-sysusers", f"--root={tmp_path}", DATA / "nestd.sysusers")
    name, _, uid, _, _, home, shell = (tmp_path / "etc/passwd").read_text().strip().split(":")
    assert (name, home, Path(shell).name) == ("nestd", "/", "nologin")
    assert 0 < int(uid) < 1000
    assert re.fullmatch(r"nestd:x:\d+:\n", (tmp_path / "etc/group").read_text())


@pytest.mark.parametrize("page", ["nestd.8", "nestctl.1", "nestd.conf.5", "org.nestd1.5", "nested-kvm.7"])
def test_man_pages_are_clean(page: str) -> None:
    assert run("mandoc", "-T", "lint", "-W", "warning", DATA / page) == ""


@pytest.fixture(scope="module")
def nestd_page() -> str:
    return (DATA / "nestd.8").read_text()


def listed(page: str) -> set[str]:
    """The words that head an entry of a list: of .It Sy A , B they are A and B."""
    return {
        word
        for line in re.findall(r"^\.It (?:Sy|Cm) (.*)$", page, re.MULTILINE)
        for word in line.partition(" Pq ")[0].replace(" , ", " ").split()
    }


@pytest.mark.parametrize(("interface", "kind", "member", "signature"), MEMBERS)
def test_every_member_has_its_entry(
    nestd_page: str, interface: str, kind: str, member: str, signature: str
) -> None:
    chapters = re.split(
        r"^\.Sh (?:THE JOBS|THE GUESTS|THE LABS|THE NEXT BOOT)$", nestd_page, flags=re.MULTILINE
    )
    order = ["org.nestd1.Manager", "org.nestd1.Job", "org.nestd1.Guest", "org.nestd1.Lab"]
    chapter = chapters[order.index(interface)]
    if kind == "property":
        assert f".It Sy {member} Pq Li {signature}\n" in chapter
    else:
        assert member in listed(chapter)


def test_every_action_obstacle_and_error_has_its_entry(nestd_page: str) -> None:
    own = [
        x.name.rpartition(".")[2]
        for x in errors.BusError.__subclasses__()
        if x.name.startswith("org.nestd1.")
    ]
    assert {*ACTIONS, *(x.value for x in Obstacle if x), *own} <= listed(nestd_page)


def commands(parser: argparse.ArgumentParser) -> list[tuple[str, argparse.ArgumentParser]]:
    """Every command, also those of commands."""
    found = [x.choices for x in parser._actions if isinstance(x, argparse._SubParsersAction)]
    named = [each for choices in found for each in choices.items()]
    return named + [deeper for _, each in named for deeper in commands(each)]


def test_every_command_and_option_of_nestctl_has_its_entry() -> None:
    page = (DATA / "nestctl.1").read_text()
    parser = arguments.parser()
    options = {
        option
        for each in (parser, *(below for _, below in commands(parser)))
        for option in each._option_string_actions
        if option.startswith("--")
    }
    assert {name for name, _ in commands(parser)} <= listed(page)
    assert {f"--{x}" for x in re.findall(r"\bFl -([a-z-]+)", page)} == options


def test_the_exit_codes_of_nestctl() -> None:
    told = dict(re.findall(r"^  (\d)  (.*)$", arguments.EXIT_CODES, re.MULTILINE))
    page = (DATA / "nestctl.1").read_text()
    listed_codes = dict(re.findall(r"^\.It (\d)\n(.*)\.$", page, re.MULTILINE))
    assert {code: text[0].lower() + text[1:] for code, text in listed_codes.items()} == told
