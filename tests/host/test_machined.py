# SPDX-License-Identifier: LGPL-2.1-or-later
"""Guests in systemd-machined's list; what the fake claims, tests/vm/test_guests.py proves."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from nestd.bus.connection import Connection
from nestd.host import machined
from nestd.wire import message
from nestd.wire.header import Kind
from tests.support import loop
from tests.support.privatebus import PrivateBus

NAME = "org.freedesktop.machine1"
POLICY = f'<policy user="root"><allow own="{NAME}"/><allow send_destination="{NAME}"/></policy>'


class FakeMachined:
    """Lists machines by their leaders; `refuses` is the error that RegisterMachine gives then."""

    def __init__(self, connection: Connection) -> None:
        self.machines: dict[int, Sequence[object]] = {}
        self.refuses = ""
        self._connection = connection
        connection.add_message_handler(self._handle)

    def _handle(self, received: message.Message) -> bool:
        header = received.header
        if header.kind != Kind.CALL:
            return False
        assert (header.path, header.interface) == ("/org/freedesktop/machine1", f"{NAME}.Manager")
        values, serial = received.values(), self._connection.next_serial()
        error = self._error(header.member, header.signature, values)
        if error:
            self._connection.send(message.error(serial, header, error, "it does not go"))
        else:
            self._connection.send(message.reply(serial, header, "o", ["/org/freedesktop/machine1/machine/x"]))
        return True

    def _error(self, member: str, signature: str, values: Sequence[object]) -> str:
        """The error's name, or none: a name or a leader that is known is refused."""
        match member, signature, values:
            case "GetMachineByPID", "u", [int(pid)]:
                return "" if pid in self.machines else f"{NAME}.NoMachineForPID"
            case "RegisterMachine", "sayssus", [name, _, _, _, int(pid), _]:
                taken = any(name == each[0] for each in self.machines.values()) or pid in self.machines
                if taken or self.refuses:
                    return self.refuses or f"{NAME}.MachineExists"
                self.machines[pid] = values
                return ""
        raise AssertionError((member, signature, values))


@asynccontextmanager
async def _buses() -> AsyncIterator[tuple[Connection, Connection]]:
    """The connections of nestd and of somebody else, on a bus of their own."""
    with PrivateBus(policy=POLICY) as bus:
        ours, theirs = await Connection.connect(bus.address), await Connection.connect(bus.address)
        try:
            yield ours, theirs
        finally:
            await ours.close()
            await theirs.close()


def test_a_guest_is_listed_once(capfd: pytest.CaptureFixture[str]) -> None:
    async def scenario() -> None:
        async with _buses() as (ours, theirs):
            fake = FakeMachined(theirs)
            await theirs.request_name(NAME)
            for _ in range(2):  # the next nestd does it again
                await machined.register(ours, "demo", 4711)
            assert fake.machines == {4711: ["nestd-demo", b"", "nestd", "vm", 4711, ""]}
            assert capfd.readouterr().err == ""
            await machined.register(ours, "demo", 4712)
            assert "<4>systemd-machined does not list the guest demo, which runs" in capfd.readouterr().err
            fake.refuses = "org.freedesktop.DBus.Error.AccessDenied"
            await machined.register(ours, "other", 4713)
            assert "AccessDenied: it does not go" in capfd.readouterr().err
            assert list(fake.machines) == [4711]

    loop.run(scenario())


def test_without_machined_nobody_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    async def scenario() -> None:
        async with _buses() as (ours, _):
            await machined.register(ours, "demo", 4711)
            assert capfd.readouterr().err == ""

    loop.run(scenario())


@pytest.mark.parametrize(
    ("guest", "machine"),
    [
        ("demo", "nestd-demo"),
        ("lab-1.example", "nestd-lab-1.example"),
        ("a_b", "nestd-a-5fb"),
        ("a..b", "nestd-a-2e-2eb"),
        ("a-", "nestd-a-2d"),
        ("a.-b", "nestd-a-2e-2db"),
        ("x" + "_" * 39, "nestd-x" + "-5f" * 19),
    ],
)
def test_the_names_of_machines(guest: str, machine: str) -> None:
    assert machined.machine_name(guest) == machine
    # hostname_is_valid() of systemd
    labels = machine.split(".")
    assert len(machine) <= 64 and all(re.fullmatch(r"(?!-)[A-Za-z0-9-]+(?<!-)", label) for label in labels)
