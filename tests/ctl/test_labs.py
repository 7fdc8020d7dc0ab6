# SPDX-License-Identifier: LGPL-2.1-or-later
"""nestctl lab, as a whole process, on pipes."""

from __future__ import annotations

import json

import pytest

from nestd.ctl import labrender, labs
from nestd.errors import Malformed
from tests.ctl.running import Fake

TOWN = "/org/nestd1/lab/town"
SHOWN = """\
            Name: town
           State: partial
           Owner: root (uid 0)
          Subnet: 10.77.0.0/24
         Created: 2023-11-14 22:13:20 UTC

NODE    STATE    ADDRESS       MAC
town-1  running  10.77.0.1/24  52:54:00:ab:cd:01
town-2  off      10.77.0.2/24  52:54:00:ab:cd:02\\x1b
"""


def test_a_lab_is_created_and_shown(fake: Fake) -> None:
    disk = "path=/base.raw,format=raw"
    more = ["--memory", "1G", "--disk", disk, "--kernel", "/k", "--append", "ip=%a", "--user", "alice"]
    done = fake.run("lab", "create", "town", "--nodes", "3", "--subnet", "10.1.2.0/24", *more)
    assert (done.returncode, done.stdout, done.stderr) == (0, SHOWN, "")
    created, shown = fake.calls()
    assert created["interactive"]
    assert (created["member"], created["body"]) == (
        "CreateLab",
        [
            "town",
            {
                "memory": 1 << 30,
                "disks": [{"path": "/base.raw", "format": "raw"}],
                "kernel": "/k",
                "append": "ip=%a",
                "user": "alice",
                "nodes": 3,
                "subnet": "10.1.2.0/24",
            },
        ],
    )
    assert (shown["member"], shown["path"], shown["body"]) == ("GetAll", TOWN, ["org.nestd1.Lab"])


def test_only_what_is_said_is_asked_for(fake: Fake) -> None:
    assert fake.run("lab", "create", "town").returncode == 0
    assert fake.calls()[0]["body"] == ["town", {}]


@pytest.mark.parametrize(
    "option",
    [["--network", "user"], ["--forward", "22-22"], ["--console"], ["--nodes", "0"], ["--initrd", "/i"]],
)
def test_what_nodes_do_not_have(fake: Fake, option: list[str]) -> None:
    done = fake.run("lab", "create", "town", *option)
    assert (done.returncode, done.stdout, fake.calls()) == (2, "", [])
    assert option[0] in done.stderr


def test_list(fake: Fake) -> None:
    done = fake.run("lab", "list")
    wanted = "NAME  STATE    OWNER  SUBNET        NODES\ntown  partial  root   10.77.0.0/24  1 of 2 run\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, wanted, "")
    assert labrender.labs([]) == "No labs.\n"


def test_show(fake: Fake) -> None:
    done = fake.run("lab", "show", "town")
    assert (done.returncode, done.stdout, done.stderr) == (0, SHOWN, "")
    unknown = labrender.lab({"nodes": "?"}, "unknown")
    assert "unknown" in unknown and unknown.endswith("NODE  STATE  ADDRESS  MAC\n")


@pytest.mark.parametrize("argv", [["create", "town"], ["list"], ["show", "town"]])
def test_json(fake: Fake, argv: list[str]) -> None:
    [verb, *name] = argv
    for words in (["lab", verb, *name, "--json"], ["--json", "lab", verb, *name]):
        told = json.loads(fake.run(*words).stdout)
        values = told[0] if verb == "list" else told
        assert (values["name"], values["state"], values["owner"]) == ("town", "partial", 0)
        assert [node["guest"] for node in values["nodes"]] == ["town-1", ""]
        assert values["nodes"][0]["address"] == "10.77.0.1/24"


@pytest.mark.parametrize(
    ("argv", "member", "body"),
    [
        (["start", "town"], "Start", [{}]),
        (["stop", "town"], "Stop", [{}]),
        (["stop", "town", "--timeout", "0"], "Stop", [{"timeout": 0}]),
        (["remove", "town"], "Remove", []),
    ],
)
def test_what_is_done_to_it(fake: Fake, argv: list[str], member: str, body: list[object]) -> None:
    done = fake.run("lab", *argv)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    found, did = fake.calls()
    assert (found["member"], found["body"]) == ("GetLab", ["town"])
    assert (did["member"], did["path"], did["body"]) == (member, TOWN, body)
    fake.fail({member: ("org.nestd1.Error.Busy", "The lab town is being started.")})
    refused = fake.run("lab", *argv)
    assert (refused.returncode, refused.stdout) == (5, "")
    assert "being started" in refused.stderr
    assert fake.run("--json", "lab", *argv).returncode == 2


@pytest.mark.parametrize("verb", ["show", "start", "stop", "remove"])
def test_a_lab_that_is_not_there(fake: Fake, verb: str) -> None:
    done = fake.run("lab", verb, "village")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no lab of that name" in done.stderr


def test_lab_alone_is_no_command(fake: Fake) -> None:
    done = fake.run("lab")
    assert (done.returncode, done.stdout, fake.calls()) == (2, "", [])


@pytest.mark.parametrize("nodes", ["?", 7, [("town-1", "10.77.0.1/24", "/")], ["abcd"], [(1, 2, 3, 4)]])
def test_nodes_of_another_shape(nodes: object) -> None:
    with pytest.raises(Malformed, match="another shape"):
        labs.with_nodes({"name": "town", "nodes": nodes})
    assert labs.with_nodes({"name": "town"}) == {"name": "town", "nodes": []}


def test_another_nestds_nodes_are_told_of_in_a_line(fake: Fake) -> None:
    (fake.folder / "odd-nodes").touch()
    done = fake.run("lab", "show", "town")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "nestctl: nestd's answer cannot be read: a lab's nodes have another shape than this nestctl knows.",
        "    Is nestd of another version?",
    ]
