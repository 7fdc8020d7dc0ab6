# SPDX-License-Identifier: LGPL-2.1-or-later
"""A lab as a value, what is put into its texts, and its record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestd.errors import InvalidArgs, Malformed
from nestd.guestmodel import Disk, Overlay
from nestd.guests import lab, labplaces, labstore, request
from nestd.guests.lab import Lab, LabState
from nestd.guests.placeholders import Node, put_in, put_in_bytes
from nestd.host.root import Root

NODE = Node("town-3", 3, "10.77.0.3", "town")


def town(**options: Any) -> Lab:
    return lab.new("town", 1000, "alice", options)


def test_what_a_lab_is_without_options() -> None:
    made = town()
    assert (made.nodes, made.subnet, list(made.numbers)) == (2, "10.77.0.0/24", [1, 2])
    assert (made.doing, made.begun, made.options) == ("create", (1, 2), {})
    assert [lab.node(made, number) for number in made.numbers] == ["town-1", "town-2"]


def test_its_own_options_are_none_of_the_guests() -> None:
    made = town(nodes=3, subnet="192.168.5.0/25", memory=64 << 20, kernel="/k")
    assert made.options == {"memory": 64 << 20, "kernel": "/k"}
    spec = lab.spec(made, 3)
    assert (spec.name, spec.user, spec.memory, spec.kernel) == ("town-3", "alice", 64 << 20, "/k")
    assert (spec.network.kind, spec.network.lab, spec.network.address) == ("lab", "town", "192.168.5.3/25")


def test_macs_are_qemus_and_differ_within_a_lab() -> None:
    made = town(nodes=16)
    macs = [lab.mac(made, number) for number in range(1, 255)]
    assert len(set(macs)) == 254
    assert all(mac.startswith("52:54:00:") and len(mac) == 17 for mac in macs)
    assert lab.mac(made, 7) == lab.mac(town(), 7)
    assert lab.mac(made, 7) != lab.mac(lab.new("other", 1000, "alice", {}), 7)


def test_only_what_would_be_written_gets_an_overlay() -> None:
    disks = [
        {"path": "/base", "format": "raw"},
        {"path": "/cd", "format": "raw", "readonly": True},
        {"path": "/try", "format": "qcow2", "snapshot": True},
        {"path": "/data", "format": "qcow2"},
    ]
    spec = lab.spec(town(disks=disks), 2, "/top")
    folder = "/top/var/lib/nestd-labs/town"
    assert spec.disks == (
        Disk(f"{folder}/2-0.qcow2", "qcow2"),
        Disk("/cd", "raw", readonly=True),
        Disk("/try", "qcow2", snapshot=True),
        Disk(f"{folder}/2-3.qcow2", "qcow2"),
    )
    assert spec.overlays == (
        Overlay(f"{folder}/2-0.qcow2", "/base", "raw"),
        Overlay(f"{folder}/2-3.qcow2", "/data", "qcow2"),
    )
    assert spec.state == "nestd-labs/town"
    assert lab.spec(town(disks=disks[1:3]), 1).state == ""


@pytest.mark.parametrize("name", ["", "-a", ".a", "a b", "a/b", "ü", "a\n", "x" * 38])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(InvalidArgs, match="no name for a lab"):
        lab.check(name, {})


def test_the_longest_name_makes_guests_names() -> None:
    longest = lab.new("x" * 37, 1, "alice", {"nodes": 16})
    request.check_name(lab.node(longest, 16))
    assert labplaces.unit("x" * 37) != labplaces.cleaner("x" * 37)


@pytest.mark.parametrize(
    ("subnet", "words"),
    [
        ("", "no subnet"),
        ("10.77.0.1/24", "no subnet"),
        ("10.77.0.0", "prefix"),
        ("10.77.0.0/16", "prefix from /24 to /28"),
        ("10.77.0.0/29", "prefix"),
        ("::/64", "no subnet"),
        ("10.77.0.0/24\x1b", "x1b"),
    ],
)
def test_subnets_that_cannot_be(subnet: str, words: str) -> None:
    with pytest.raises(InvalidArgs, match=words):
        town(subnet=subnet)


def test_a_subnet_must_have_room() -> None:
    assert town(nodes=14, subnet="10.0.0.16/28").nodes == 14
    with pytest.raises(InvalidArgs, match="no addresses for 15 nodes"):
        town(nodes=15, subnet="10.0.0.16/28")
    full = town(nodes=13, subnet="10.0.0.16/28")
    assert lab.number_for(full, "guest", frozenset()) == 14
    assert lab.address(full, 14) == "10.0.0.30/28"
    full = full._replace(joined={"guest": 14})
    assert lab.number_for(full, "guest", frozenset({"guest"})) == 14
    assert lab.number_for(full, "other", frozenset()) == 14
    with pytest.raises(InvalidArgs, match="no address left"):
        lab.number_for(full, "other", frozenset({"guest"}))


@pytest.mark.parametrize("option", ["network", "nodez"])
def test_what_is_no_option(option: str) -> None:
    with pytest.raises(InvalidArgs):
        town(**{option: {"kind": "lab"} if option == "network" else 3, "kernel": ""})


def test_what_is_put_in() -> None:
    assert put_in("a%ab %n-%i/%l 100%% %%n", NODE, "append") == "a10.77.0.3b town-3-3/town 100% %n"
    assert put_in_bytes("#cloud-config\nü: %a\n".encode(), NODE) == "#cloud-config\nü: 10.77.0.3\n".encode()
    assert put_in_bytes(b"\x1f\x8b\x08%d", NODE) == b"\x1f\x8b\x08%d"


@pytest.mark.parametrize("text", ["%d", "50%", "date +%Y", "%\n", "%ü", "%%%"])
def test_another_percent_sign_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgs, match="write %% for a percent sign"):
        put_in(text, NODE, "append")
    with pytest.raises(InvalidArgs, match="user-data has"):
        put_in_bytes(text.encode(), NODE)


def test_a_text_that_gets_too_long_for_any_node_is_refused() -> None:
    most = 512 << 10
    data = b"%i" + b"x" * (most - 1)
    assert len(lab.spec(town(nodes=9, **{"user-data": data}), 9).user_data) == most
    with pytest.raises(InvalidArgs, match=f"at most {most}"):
        town(nodes=10, **{"user-data": data})


def test_the_values_themselves_are_not_looked_at_again() -> None:
    assert put_in("%%%n%%n", NODE._replace(name="a"), "append") == "%a%n"
    assert put_in("%i" * 3 + "%%%%", NODE, "append") == "333%%"


@given(st.text())
def test_whatever_is_quoted_arrives(text: str) -> None:
    assert put_in(text.replace("%", "%%"), NODE, "append") == text


def test_how_much_of_it_runs() -> None:
    made = town(nodes=2)._replace(joined={"guest": 3, "gone": 4})
    assert lab.view(made, frozenset(), linked=False).state is LabState.STOPPED
    assert lab.view(made, frozenset({"town-1"}), linked=True).state is LabState.PARTIAL
    assert lab.view(made, frozenset({"guest"}), linked=True).state is LabState.PARTIAL
    both = frozenset({"town-1", "town-2"})
    assert lab.view(made, both, linked=True).state is LabState.RUNNING
    assert lab.view(made, both, linked=False).state is LabState.PARTIAL
    shown = lab.view(made, both | {"guest"}, linked=True)
    assert [(node.name, node.guest) for node in shown.nodes] == [
        ("town-1", "town-1"),
        ("town-2", "town-2"),
        ("guest", "guest"),
    ]


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    root = Root(str(tmp_path))
    disks = [{"path": "/ü", "format": "raw", "readonly": False}]
    kept = town(disks=disks, **{"user-data": b"\x1f\x8b\x00\xff", "require-nesting": False})
    kept = kept._replace(joined={"base64": 3})  # a guest's name, and not what bytes are kept under
    labstore.save(root, kept)
    labstore.save(root, lab.new("other", 0, "nestd", {}))
    assert labstore.load_all(root) == (
        lab.new("other", 0, "nestd", {})._replace(created=_created(root)),
        kept,
    )
    path = tmp_path / "var/lib/nestd/labs/town.json"
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    labstore.remove(root, "town")
    labstore.remove(root, "town")
    assert [each.name for each in labstore.load_all(root)] == ["other"]


def _created(root: Root) -> int:
    created: int = json.loads(root.read(labplaces.record("other")) or "")["created"]
    return created


def test_a_record_that_could_not_be_read_again_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="large"):
        labstore.save(Root(str(tmp_path)), town(append="x" * 10, kernel="/k")._replace(user="x" * (1 << 20)))
    assert labstore.load_all(Root(str(tmp_path))) == ()


def _wrong() -> dict[str, str]:
    good = json.loads(json.dumps(town()._asdict()))
    changed = {
        "another's": {"name": "city"},
        "a word for an owner": {"owner": "root"},
        "true for an owner": {"owner": True},
        "no nodes": {"nodes": 0},
        "no subnet": {"subnet": "10.0.0.0/8"},
        "an unknown activity": {"doing": "dance"},
        "text for numbers": {"begun": "12"},
        "words for numbers": {"begun": ["1"]},
        "a list for options": {"options": []},
        "joined by nothing": {"joined": {"a": None}},
        "a list of the joined": {"joined": ["a"]},
    }
    texts = {what: json.dumps(good | change) for what, change in changed.items()}
    texts["a field too many"] = json.dumps({**good, "colour": "red"})
    texts["a field less"] = json.dumps({key: value for key, value in good.items() if key != "begun"})
    texts["half of it"] = json.dumps(good)[:-20]
    return texts | {"nothing": "", "a number": "7", "too deep": "[" * 100_000, "no base64": '{"base64": 7}'}


WRONG = _wrong()


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_record(tmp_path: Path, what: str) -> None:
    with pytest.raises(Malformed):
        labstore.parse("town", WRONG[what])
    root = Root(str(tmp_path))
    labstore.save(root, lab.new("other", 0, "nestd", {}))
    path = tmp_path / "var/lib/nestd/labs/town.json"
    path.write_text(WRONG[what])
    (path.parent / "..json").touch()
    (path.parent / "note").touch()
    (path.parent / "link.json").symlink_to("/etc/passwd")
    # The others are there, and it is still where it was.
    assert [each.name for each in labstore.load_all(root)] == ["other"]
    assert path.read_text() == WRONG[what]
