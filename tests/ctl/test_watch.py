# SPDX-License-Identifier: LGPL-2.1-or-later
"""nestctl watch: the real process, on a real nestd that comes and goes."""

from __future__ import annotations

import json
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.ctl.running import LIMIT, NESTCTL, TOP, Fake
from tests.daemon.conftest import tools, tree  # the same machine
from tests.daemon.village import village
from tests.support.clients import DBUS, NOBODY, PATH, PROPERTIES, Client, Message, Variant
from tests.support.daemon import POLICY, Daemon, by_hand
from tests.support.privatebus import PrivateBus
from tests.support.tools import Tools
from tests.support.tree import Tree

__all__ = ["tools", "tree"]

pytestmark = pytest.mark.bus

UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


class Watch:
    """nestctl watch, and the lines that have been read of it."""

    def __init__(self, bus: PrivateBus, *argv: str) -> None:
        self.process = subprocess.Popen(
            [*NESTCTL, "watch", *argv],
            env=bus.environment | {"PYTHONPATH": str(TOP), "TZ": "UTC"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        self.stdout = self.process.stdout
        self.lines: list[str] = []
        self._rest = b""

    def line(self) -> str:
        """The next line; it comes whole, and nothing has to follow it."""
        deadline = time.monotonic() + LIMIT
        while b"\n" not in self._rest:
            assert select.select([self.stdout], [], [], max(0, deadline - time.monotonic()))[0], self.lines
            piece = self.stdout.read1(65536)  # type: ignore[attr-defined]
            assert piece, (self.lines, self.process.stderr and self.process.stderr.read())
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        self.lines.append(line.decode())
        return self.lines[-1]

    def event(self, event: str, **wanted: Any) -> dict[str, Any]:
        """Read on until this event comes; all that it says."""
        while True:
            values: dict[str, Any] = json.loads(self.line())
            assert UTC.fullmatch(values["time"]), values
            if values["event"] == event and all(values[key] == value for key, value in wanted.items()):
                return values

    def words(self, wanted: str) -> None:
        """Read on until a line ends so, behind the time."""
        while not re.fullmatch(rf"[A-Z][a-z]{{2}} \d\d \d\d:\d\d:\d\d {wanted}", self.line()):
            pass

    def end(self) -> tuple[int, str]:
        """Wait for its end: exit code, and what it complains of."""
        _, complaint = self.process.communicate(timeout=LIMIT)
        return self.process.returncode, complaint.decode()


@contextmanager
def watching(bus: PrivateBus, *argv: str) -> Iterator[Watch]:
    watch = Watch(bus, *argv)
    with watch.process:
        try:
            yield watch
        finally:
            watch.process.kill()


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[PrivateBus]:
    """A bus that would start nestd, and leaves a mark if it does."""
    services = tmp_path / "services"
    services.mkdir()
    entry = f"[D-BUS Service]\nName=org.nestd1\nExec=/usr/bin/touch {tmp_path}/started\n"
    (services / "org.nestd1.service").write_text(entry)
    with PrivateBus(policies=[POLICY], services=[services]) as bus:
        yield bus


def property_changed(watch: Watch, name: str, before: object, after: object) -> None:
    told = watch.event("property-changed", property=name)
    assert (told["from"], told["to"]) == (before, after)
    assert set(told) == {"time", "event", "property", "from", "to"}


def test_what_happens_to_the_machine(bus: PrivateBus, tree: Tree, tools: Tools, tmp_path: Path) -> None:
    """Its state, modules, a change and its job, a stranger's lies, nestd's going and coming."""
    with ExitStack() as stack:
        with Daemon(bus, tree) as daemon:
            watch, read = (stack.enter_context(watching(bus, *argv)) for argv in (["--json"], []))
            start = watch.event("start")
            assert set(start) == {"time", "event", "status", "guests", "labs", "jobs"}
            assert (start["status"]["nested"], start["guests"]) == ("on", [])
            read.words("nesting is on; at the next boot on; kvm_amd loaded; no guests; no labs")
            _lies(bus)
            _a_change(bus, tools, watch, read)
            _a_drift(daemon, tools, watch, read)
        watch.event("nestd-gone")
        read.words("nestd went away")
        tree.gone("/etc/modprobe.d/zz-nestd.conf")
        with Daemon(bus, tree):
            assert watch.event("nestd-back")["version"] == start["status"]["version"]
            property_changed(watch, "nested-at-boot", "off", "on")
            read.words("nestd is back, version .*")
        watch.event("nestd-gone")
        assert not any("lie" in line for line in [*watch.lines, *read.lines])
        assert not (tmp_path / "started").exists(), "following has started nestd"
        bus.stop()
        assert watch.end() == (1, "nestctl: the system bus closed the connection\n")


def _a_change(bus: PrivateBus, tools: Tools, watch: Watch, read: Watch) -> None:
    tools.fail("rmmod", "kvm_amd", hang=0.5)
    with Client(bus.address) as root:
        root.call("Disable", "a{sv}", [{}])
    job = watch.event("job-started")
    assert set(job) == {"time", "event", "job", "operation", "step", "progress"}
    assert (job["job"], job["operation"], job["progress"]) == (1, "disable", 0.0)
    assert watch.event("job-progress")["progress"] > 0
    property_changed(watch, "nested", "on", "off")
    ended = watch.event("job-ended")
    assert (ended["operation"], ended["success"], ended["message"]) == ("disable", True, "")
    read.words(r"disable 25%: unload kvm_amd")
    read.words("nesting: on → off")
    read.words("nesting at the next boot: on → off")
    read.words("disable: done")


def _a_drift(daemon: Daemon, tools: Tools, watch: Watch, read: Watch) -> None:
    by_hand(tools, "rmmod", "kvm_amd")
    by_hand(tools, "modprobe", "kvm_amd", "nested=1")
    daemon.uevent("add", "kvm_amd")
    assert watch.event("module", action="add")["module"] == "kvm_amd"
    drift = watch.event("drift")
    assert (drift["expected"], drift["actual"]) == ("off", "on")
    read.words("module kvm_amd was loaded")
    read.words("nesting is on, and nestd was told off: the driver was loaded .*")


def _lies(bus: PrivateBus) -> None:
    """A stranger tells everybody, and each of us, of events, as nestd and as the bus do."""
    with Client(bus.address, NOBODY) as liar:
        [names] = liar.call("ListNames", destination=DBUS, path="/", interface=DBUS)
        for name in (None, *(name for name in names if name.startswith(":"))):
            _lie(liar, name)


def _lie(liar: Client, destination: str | None) -> None:
    """Tell somebody of events, as nestd does; of a new owner of its name, as the bus does."""
    told: list[tuple[str, str, str, list[Any]]] = [
        ("org.nestd1.Manager", "Drift", "sss", ["lie", "lie", "lie"]),
        (
            PROPERTIES,
            "PropertiesChanged",
            "sa{sv}as",
            ["org.nestd1.Manager", {"Nested": Variant("s", "lie")}, []],
        ),
        (DBUS, "NameOwnerChanged", "sss", ["org.nestd1", "", liar.unique_name]),
        ("org.nestd1.Manager", "Drift", "sss", ["lie", "lie", "lie"]),
    ]
    for interface, member, signature, body in told:
        path = "/org/freedesktop/DBus" if member == "NameOwnerChanged" else PATH
        signal_ = Message.new_signal(path, interface, member, signature, body)
        signal_.destination = destination  # type: ignore[assignment]
        liar.send_message(signal_)


def test_guests(bus: PrivateBus) -> None:
    """A guest comes, is stopped, goes to its end."""
    with village() as place, Daemon(place.bus, place.tree), watching(place.bus, "--json") as watch:
        watch.event("start")
        with watching(place.bus) as read, Client(place.bus.address) as root:
            read.words("nesting is on; .*; no guests; no labs")
            root.reply(place.launch(root, "demo"))
            added = watch.event("guest-added", name="demo")
            assert (added["guest"]["name"], added["guest"]["state"]) == ("demo", "running")
            root.reply(place.kill(root, "demo"))
            while "state" not in (changed := watch.event("guest-changed", name="demo")["changed"]):
                pass
            assert watch.event("guest-exited")["name"] == "demo"
            read.words("guest demo is there: running, with nesting")
            read.words(f"guest demo is {changed['state']}: .*")


def test_what_changes_between_the_first_answers(fake: Fake) -> None:
    """One of them is older than what is told then."""
    (fake.folder / "moving").touch()
    with watching(fake.bus, "--json") as watch:
        start = watch.event("start")
    (fake.folder / "moving").unlink()
    assert start["status"]["nested"] == "off"
    assert [guest["state"] for guest in start["guests"]] == ["stopping", "failed"]


def test_how_it_ends(bus: PrivateBus, tree: Tree, tools: Tools) -> None:
    """Ctrl-C ends it as it ends other tools; so does a reader that goes, although nothing happens."""
    with Daemon(bus, tree), watching(bus) as watch, watching(bus) as unread:
        watch.line()
        watch.process.send_signal(signal.SIGINT)
        assert watch.end() == (-signal.SIGINT, "")
        unread.line()
        unread.stdout.close()
        assert unread.process.wait(LIMIT) == -signal.SIGPIPE
        with subprocess.Popen(
            ["sh", "-c", '"$@" >&-', "sh", *NESTCTL, "watch"],
            env=bus.environment | {"PYTHONPATH": str(TOP)},
            stderr=subprocess.PIPE,
        ) as closed:
            assert b"standard output is closed" in closed.communicate(timeout=LIMIT)[1]
            assert closed.returncode == 1
