# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon under the fuzzer: what is sent, and what must be true of the answers and of the machine."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nestd.bus.interface import Interface
from nestd.model import Nesting
from nestd.nesting import drivers, dropin
from nestd.wire import message
from nestd.wire.header import Kind
from nestd.wire.library import Variant
from tests.attacks import victim
from tests.bus.rawclient import BUS, BusReplyError, RawClient
from tests.support.clients import MANAGER, NAME, PATH, PROPERTIES
from tests.support.daemon import Daemon
from tests.support.tree import RELEASE, Tree

_DEMO = f"{PATH}/guest/demo"
_TOWN = f"{PATH}/lab/town"
JOB, LAB = "org.nestd1.Job", "org.nestd1.Lab"
_LAUNCH = {"user": Variant("s", "nobody")}
_TOOLS = (".kernel/", "journal")  # what the tree's programs write
_CHANGES = frozenset({"Enable", "Disable", "Revert"})
_REFCNT = "/sys/module/kvm_amd/refcnt"


@dataclass(frozen=True, slots=True)
class Member:
    """A method, or a signal sent where it does not belong. `path` is an object that has it."""

    interface: str
    name: str
    signature: str
    path: str
    signal: bool = False

    @property
    def deadly(self) -> bool:
        """Whether it ends a guest, or a lab."""
        return self.name in ("Stop", "Kill", "Remove")


@dataclass(frozen=True, slots=True)
class Asked:
    """One message."""

    member: Member
    path: str
    values: list[Any]


def members(interfaces: Mapping[str, Interface]) -> list[Member]:
    """Every method and signal of the interfaces, and the methods that read and set their properties."""
    found = []
    for interface in interfaces.values():
        # A job is there only while a change is under way.
        path = {MANAGER: PATH, JOB: f"{PATH}/job/1", LAB: _TOWN}.get(interface.name, _DEMO)
        found += [Member(interface.name, x, method.takes, path) for x, method in interface.methods.items()]
        found += [Member(interface.name, x, y, path, signal=True) for x, y in interface.signals.items()]
        for name, signature in (("Get", "ss"), ("Set", "ssv"), ("GetAll", "s")):
            found.append(Member(PROPERTIES, name, signature, path))
    found.append(Member("org.freedesktop.DBus.ObjectManager", "GetManagedObjects", "", PATH))
    found.append(Member("org.freedesktop.DBus.Introspectable", "Introspect", "", PATH))
    return found


def _waits(nested: str) -> Asked:
    """A change of what is so now that waits where somebody holds the driver."""
    member = Member(MANAGER, "Disable" if nested == "on" else "Enable", "a{sv}", PATH)
    return Asked(member, PATH, [{"scope": Variant("s", "runtime"), "when-idle": Variant("b", True)}])


class Fuzzed:
    """nestd, with the guest demo and the lab town for as long as nobody ends them."""

    def __init__(self, client: RawClient, tree: Tree, daemon: Daemon) -> None:
        self.calls = 0
        self._client = client
        self._tree = tree
        self._daemon = daemon
        self._told: Counter[str] = Counter()
        driver = next(each for each in drivers.table(RELEASE) if each.name == "kvm_amd")
        self._dropins = {None, *(dropin.text(driver, nested) for nested in (Nesting.ON, Nesting.OFF))}
        self._files = self._outside()
        self._size: victim.Size | None = None
        self._held = 0
        self.waited = 0

    def told(self) -> str:
        """What was answered how often, in words."""
        known = ", ".join(f"{name.rpartition('.')[2]} {count}" for name, count in self._told.most_common())
        return f"{known}; changes that waited {self.waited}"

    def play(self, batch: Sequence[Asked]) -> None:
        """Send all of them, take the answers, look at the machine."""
        self._guest()
        # In each third batch somebody holds the driver, so that a change can wait.
        self._held = (self._held + 1) % 3
        self._client.call(NAME, PATH, MANAGER, "CancelPending")
        self._tree.replace(_REFCNT, f"{self._held == 0:d}\n")
        before = self._properties()
        if self._held == 0:
            batch = [_waits(before["Nested"]), *batch]
        serials = {self._send(asked): asked for asked in batch}
        waiting = {serial for serial, asked in serials.items() if not asked.member.signal}
        end = self._client.post(NAME, PATH, "org.freedesktop.DBus.Peer", "Ping")
        changed = False
        pinged = False
        while waiting or not pinged:
            received = self._client.receive()
            serial = received.header.reply_serial
            if received.header.kind == Kind.SIGNAL:
                continue
            if serial == end:
                pinged = True
                continue
            assert serial in waiting, "an answer too many"
            waiting.discard(serial)
            changed = self._answer(serials[serial], received) or changed
        for fd in self._client.fds:
            os.close(fd)
        self._client.fds.clear()
        self.calls += len(batch)
        if not changed:
            after = self._properties()
            assert after == before, (before, after, batch)
        self._machine(self._properties())

    def judge(self) -> None:
        """What must be true in the end."""
        assert victim.alive(self._daemon)
        odd = sorted(self._outside() ^ self._files)
        assert not odd, odd
        lines = self._daemon.stderr().splitlines()
        assert not [line for line in lines if "unforeseen" in line or " failed " in line], lines
        assert "NESTD_TRACEBACK" not in self._daemon.stderr(), lines

    def _send(self, asked: Asked) -> int:
        serial, member = self._client.serial(), asked.member
        what = (asked.path, member.interface, member.name, member.signature, asked.values)
        if member.signal:
            self._client.send(message.signal(serial, *what, destination=NAME))
        else:
            self._client.send(message.call(serial, NAME, *what))
        return serial

    def _answer(self, asked: Asked, received: message.Message) -> bool:
        """Look at an answer; whether it says that something was changed."""
        header = received.header
        values = received.values(1 << 20)
        if header.kind == Kind.ERROR:
            self._told[header.error_name] += 1
            # A path that the bus itself does not take is not in the strategies.
            assert header.sender != BUS, (asked, values)
            assert header.error_name in victim.CLOSED, (asked, header.error_name, values)
            assert not victim.told_too_much(values[0]), (asked, values)
            return asked.member.name in _CHANGES
        assert header.kind == Kind.REPLY
        self._told["replies"] += 1
        if asked.member.name not in _CHANGES:
            return False
        self.waited += values[0]["pending"].value
        return any(values[0][key].value for key in ("changed", "pending"))

    def _guest(self) -> None:
        """Start the guest and the lab if they are not there."""
        options = {**_LAUNCH, "require-nesting": Variant("b", False)}
        for get, make, name in (("GetGuest", "Launch", "demo"), ("GetLab", "CreateLab", "town")):
            try:
                self._client.call(NAME, PATH, MANAGER, get, "s", [name])
            except BusReplyError:
                self._client.call(NAME, PATH, MANAGER, make, "sa{sv}", [name, options])

    def _properties(self) -> dict[str, Any]:
        [known] = self._client.call(NAME, PATH, PROPERTIES, "GetAll", "s", [MANAGER])
        return {name: value.value for name, value in known.items()}

    def _machine(self, properties: Mapping[str, Any]) -> None:
        """The switch and the drop-in are whole, and what nestd says."""
        parameter = self._tree.root.read("/sys/module/kvm_amd/parameters/nested")
        assert parameter in ("0\n", "1\n"), parameter
        assert properties["Nested"] == ("on" if parameter == "1\n" else "off"), (properties, parameter)
        kept, names = self._tree.root.read(dropin.PATH), self._tree.root.names("/etc/modprobe.d")
        assert kept in self._dropins, kept
        assert names in ((), ("zz-nestd.conf",)), names

    def _outside(self) -> set[str]:
        """Every file of the tree that nestd has no business to make."""
        top = self._tree.top
        own = (
            "run/nestd",
            "var/lib/nestd/",
            "var/lib/nestd-labs",
            "sys/module/kvm",
            "etc/modprobe.d/zz-nestd.conf",
            *_TOOLS,
        )
        found = {str(path.relative_to(top)) for path in top.rglob("*")}
        beside = {f"../{path.name}" for path in top.parent.iterdir()}
        return beside | {path for path in found if not path.startswith(own)}
