# SPDX-License-Identifier: LGPL-2.1-or-later
"""Calls, replies, signals and names, over a real bus and over one that lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nestd import errors, tasks
from nestd.bus.connection import Connection
from nestd.bus.matches import BUS, Rule, Signal
from nestd.wire import message
from nestd.wire.header import Flag, Kind
from tests.bus.fakebus import FakeBus, faking
from tests.bus.rawclient import RawClient
from tests.bus.service import IFACE, NAME, TOP, serving
from tests.support import loop
from tests.support.privatebus import PrivateBus

_OTHER = "org.freedesktop.PolicyKit1"
_ASKED, _LIAR = ":1.5", ":1.6"


async def _failure(call: Any) -> errors.CallFailed:
    with pytest.raises(errors.CallFailed) as caught:
        await call
    return caught.value


def test_calls_over_a_real_bus(each_bus: PrivateBus) -> None:
    async def go() -> None:
        async with serving(each_bus.address) as service:
            client = await Connection.connect(each_bus.address)
            for destination in (NAME, service.connection.unique_name):
                assert await client.call(destination, TOP, IFACE, "Echo", "s", ["x"]) == ["x"]
            told = await _failure(client.call(NAME, TOP, IFACE, "Fail", "s", ["busy"]))
            assert (told.name, told.text) == (errors.Busy.name, "Another change runs: wait for it.")
            told = await _failure(client.call("no.such.name", "/", "a.b", "C"))
            assert told.name == "org.freedesktop.DBus.Error.ServiceUnknown"
            told = await _failure(client.call(NAME, TOP, IFACE, "Wait", limit=0.05))
            assert told.name == "org.freedesktop.DBus.Error.NoReply"
            await client.call(NAME, TOP, IFACE, "Options", "a{sv}", [{}], interactive=True)
            assert service.thing.calls[-1].interactive
            await client.close()
            told = await _failure(client.call(NAME, TOP, IFACE, "Echo", "s", ["x"]))
            assert told.name == "org.freedesktop.DBus.Error.Disconnected"

    loop.run(go())


def test_names(bus: PrivateBus) -> None:
    async def go() -> None:
        one, two = await Connection.connect(bus.address), await Connection.connect(bus.address)
        assert await one.request_name(NAME, 4) == 1
        assert await two.request_name(NAME, 4) == 3
        assert await one.release_name(NAME) == 1
        assert await two.request_name(NAME, 4) == 1
        assert (await _failure(one.request_name("org.forbidden"))).name == errors.AccessDenied.name
        await one.close()
        await two.close()

    loop.run(go())


def test_signals_count_only_from_the_owner_of_the_name(each_bus: PrivateBus) -> None:
    async def go() -> None:
        listener = await Connection.connect(each_bus.address)
        first, second = await Connection.connect(each_bus.address), await Connection.connect(each_bus.address)
        await first.request_name(_OTHER)
        await second.request_name(_OTHER)  # queued
        heard: list[Signal] = []
        rule = f"type='signal',sender='{_OTHER}',interface='a.b',member='S',path_namespace='/x',arg1='yes'"
        unsubscribe = await listener.subscribe(rule, heard.append)

        async def tell(connection: Connection, text: str, path: str = "/x/y", answer: str = "yes") -> None:
            data = message.signal(
                connection.next_serial(),
                path,
                "a.b",
                "S",
                "ss",
                [text, answer],
                destination=listener.unique_name,
            )
            connection.send(data)
            # The bus keeps the order: what was sent before this reached the listener before the next.
            await connection.bus("GetId")
            await listener.bus("GetId")

        await tell(first, "first")
        await tell(second, "forged")
        await tell(first, "elsewhere", path="/xy")
        await tell(first, "other argument", answer="no")
        await first.release_name(_OTHER)
        await tell(first, "too late")
        await tell(second, "second")
        await unsubscribe()
        await tell(second, "nobody listens")
        assert [x.body[0] for x in heard] == ["first", "second"]
        for each in (listener, first, second):
            await each.close()

    loop.run(go())


def test_a_handler_that_fails_keeps_the_signal_from_nobody(bus: PrivateBus) -> None:
    async def go() -> None:
        connection = await Connection.connect(bus.address)
        heard = tasks.Event()

        def fails(_: Signal) -> None:
            raise RuntimeError("a bug")

        rule = f"type='signal',sender='{BUS}',member='NameOwnerChanged'"
        await connection.subscribe(rule, fails)
        await connection.subscribe(rule, lambda _: heard.set())
        with RawClient(bus.address):
            async with tasks.timeout(20):
                await heard.wait()
        await connection.close()

    loop.run(go())


def test_the_end_of_the_bus_is_noticed(bus: PrivateBus) -> None:
    async def go() -> None:
        connection = await Connection.connect(bus.address)
        other = await Connection.connect(bus.address)
        await other.request_name(NAME)
        called = tasks.Event()

        def never_answer(received: message.Message) -> bool:
            called.set()
            return received.header.kind == Kind.CALL

        other.add_message_handler(never_answer)
        waiting = tasks.create_task(_failure(connection.call(NAME, "/", "a.b", "C")))
        await called.wait()
        await tasks.to_thread(bus.stop)
        async with tasks.timeout(20):
            await connection.wait_for_disconnect()
            assert (await waiting).name == "org.freedesktop.DBus.Error.Disconnected"
        await connection.close()
        await other.close()

    loop.run(go())


def test_only_whom_it_was_asked_of_can_answer(tmp_path: Path) -> None:
    async def go() -> None:
        async with faking(tmp_path) as (fake, connection):
            call = tasks.create_task(connection.call(_ASKED, "/", "a.b", "C"))
            header = (await tasks.to_thread(fake.receive)).header
            fake.send(_LIAR, message.reply(7, header, "s", ["forged"]))
            fake.send(_LIAR, message.error(8, header, "a.Forged", "forged"))
            fake.send(BUS, message.reply(9, header, "s", ["not even the bus"]))
            fake.send(_ASKED, message.reply(10, header._replace(serial=header.serial + 1), "s", ["other"]))
            fake.send(_ASKED, message.reply(11, header, "s", ["right"]))
            fake.send(_ASKED, message.reply(12, header, "s", ["once more"]))
            assert await call == ["right"]
            call = tasks.create_task(connection.call(_ASKED, "/", "a.b", "C"))
            header = (await tasks.to_thread(fake.receive)).header
            fake.send(BUS, message.error(13, header, "a.Gone", "it left"))
            assert (await _failure(call)).name == "a.Gone"

    loop.run(go())


@pytest.mark.parametrize("ending", ["time", "cancel"])
def test_an_answer_that_comes_too_late(tmp_path: Path, ending: str) -> None:
    async def go() -> None:
        async with faking(tmp_path) as (fake, connection):
            limit = 0.01 if ending == "time" else 20
            call = tasks.create_task(connection.call(_ASKED, "/", "a.b", "C", limit=limit))
            header = (await tasks.to_thread(fake.receive)).header
            if ending == "cancel":
                call.cancel()
                with pytest.raises(tasks.Cancelled):
                    await call
            else:
                assert (await _failure(call)).name == "org.freedesktop.DBus.Error.NoReply"
            fake.send(_ASKED, message.reply(9, header, "s", ["late"]))
            await _next_call(fake, connection)

    loop.run(go())


@pytest.mark.parametrize("body", [b"\xff\xff\xff\xff\0", bytes(700 << 10)], ids=["malformed", "too large"])
def test_an_answer_that_makes_no_sense(tmp_path: Path, body: bytes) -> None:
    async def go() -> None:
        async with faking(tmp_path) as (fake, connection):
            call = tasks.create_task(connection.call(_ASKED, "/", "a.b", "C"))
            header = (await tasks.to_thread(fake.receive)).header
            whole = bytearray(message.reply(9, header._replace(sender=_ASKED), "s", [""]))
            whole[4:8] = len(body).to_bytes(4, "little")
            from tests.bus.fakebus import stamped

            sending = tasks.to_thread(fake.raw, stamped(_ASKED, bytes(whole[:-5]) + body))
            await sending
            told = await _failure(call)
            assert told.name in ("org.freedesktop.DBus.Error.InconsistentMessage", errors.LimitsExceeded.name)
            await _next_call(fake, connection)

    loop.run(go())


def test_a_stream_that_is_no_stream_of_messages(tmp_path: Path) -> None:
    async def go() -> None:
        async with faking(tmp_path) as (fake, connection):
            call = tasks.create_task(_failure(connection.call(_ASKED, "/", "a.b", "C")))
            await tasks.to_thread(fake.receive)
            fake.raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            async with tasks.timeout(20):
                await connection.wait_for_disconnect()
            assert (await call).name == "org.freedesktop.DBus.Error.Disconnected"

    loop.run(go())


def test_nobody_there(tmp_path: Path) -> None:
    async def go() -> None:
        for address in (f"unix:path={tmp_path}/nothing", f"unix:path={tmp_path};unix:path={tmp_path}/x"):
            with pytest.raises(OSError, match="cannot connect to the bus"):
                await Connection.connect(address)
        with pytest.raises(errors.Malformed):
            await Connection.connect("tcp:host=example")

    loop.run(go())


def test_the_second_address_is_tried(bus: PrivateBus) -> None:
    async def go() -> None:
        connection = await Connection.connect(f"unix:path=/nonexistent;{bus.address}")
        assert connection.unique_name.startswith(":")
        await connection.close()

    loop.run(go())


@pytest.mark.parametrize(
    "rule",
    ["", "type='signal'", "sender='a.b'", "type='method_call',sender='a.b'",
     "type='signal',sender='a.b',eavesdrop='x'", "type='signal',sender='a.b',sender='c.d'",
     "type=signal,sender=a.b"],
)  # fmt: skip
def test_rules_that_are_refused(rule: str) -> None:
    with pytest.raises(ValueError):
        Rule.parse(rule)


async def _next_call(fake: FakeBus, connection: Connection) -> None:
    """The connection still works."""
    call = tasks.create_task(connection.call(_ASKED, "/", "a.b", "D"))
    header = (await tasks.to_thread(fake.receive)).header
    assert (header.kind, header.flags & Flag.NO_REPLY_EXPECTED) == (Kind.CALL, 0)
    fake.send(_ASKED, message.reply(20, header, "s", ["fine"]))
    assert await call == ["fine"]
