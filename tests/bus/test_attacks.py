# SPDX-License-Identifier: LGPL-2.1-or-later
"""What strangers can send, and what a service that faces them must survive.

Each test names the row of the table of dbus-next's faults that it closes. The rows about handlers
(caller, tracebacks, CancelledError, Peer, ObjectManager, XML, disconnect) are in test_dispatcher.py.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from struct import pack, unpack_from
from typing import Any

import pytest

from nestd import errors, tasks
from nestd.bus.connection import MessageHandler
from nestd.wire import message
from nestd.wire.header import Flag, Kind
from nestd.wire.library import SignatureTree, Variant
from tests.bus.fakebus import FakeBus, faking, stamped
from tests.bus.rawclient import BusReplyError, RawClient
from tests.bus.service import IFACE, NAME, PROPERTIES, TOP, serving
from tests.support import loop
from tests.support.privatebus import PrivateBus

_QUIET = Flag.NO_REPLY_EXPECTED
_EVIL, _GOOD = ":1.66", ":1.7"


def _with_field(data: bytes, field: bytes) -> bytes:
    """A message with one more header field."""
    (length,) = unpack_from("<I", data, 12)
    body = data[-(-(16 + length) // 8) * 8 :]
    fields = data[16 : 16 + length] + bytes(-length % 8) + field
    return data[:12] + pack("<I", len(fields)) + fields + bytes(-len(fields) % 8) + body


def _open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # counted, not used


async def _still_serves(bus: PrivateBus) -> None:
    with RawClient(bus.address) as client:
        assert await client.ask(NAME, TOP, IFACE, "Echo", "s", ["still here"]) == ["still here"]


@pytest.mark.parametrize(
    "field",
    [b"\x2a\x01s\0\x01\0\0\0x\0", b"\xfe\x05a{sv}\0" + bytes(8), b"\x0a\x01o\0\x02\0\0\0/a\0"],
    ids=["string", "dictionary", "container"],
)
def test_unknown_header_field(each_bus: PrivateBus, field: bytes) -> None:
    """Row: "an unknown header field raises and ends the connection"."""

    async def go() -> None:
        async with serving(each_bus.address):
            with RawClient(each_bus.address) as client:
                call = message.call(client.serial(), NAME, TOP, IFACE, "Echo", "s", ["x"])
                client.send(_with_field(call, field))
                # A bus that does not like the field ends this client; the service goes on.
                with suppress(ConnectionError):
                    await tasks.to_thread(client.receive)
            await _still_serves(each_bus)

    loop.run(go())


def test_unknown_header_field_behind_a_bus_that_forwards_it(tmp_path: Path) -> None:
    """Row: "an unknown header field raises and ends the connection; dbus-broker forwards such fields"."""

    async def go() -> None:
        async with faking(tmp_path) as (fake, connection):
            seen: list[message.Message] = []
            connection.add_message_handler(_into(seen, lambda x: x))
            call = stamped(_EVIL, message.call(5, ":1.0", TOP, IFACE, "Echo", "s", ["x"]))
            for flags in (0, 0xF0):
                data = bytearray(_with_field(call, b"\x2a\x05a{sv}\0" + bytes(8)))
                data[2] |= flags
                fake.raw(bytes(data))
            kind = bytearray(call)
            kind[1] = 99
            fake.raw(bytes(kind))
            await _until(lambda: len(seen) == 3)
            assert [x.header.kind for x in seen] == [Kind.CALL, Kind.CALL, 99]
            assert all(x.header.member == "Echo" for x in seen)

    loop.run(go())


def test_malformed_messages_cost_only_themselves(tmp_path: Path) -> None:
    async def go() -> None:
        async with faking(tmp_path) as (fake, connection):
            seen: list[str] = []
            connection.add_message_handler(_into(seen, lambda x: x.header.member))
            good = stamped(_EVIL, message.call(5, ":1.0", TOP, IFACE, "Echo", "s", ["x"]))
            random.seed(7)
            # Not the endianness, the version and the lengths: those no bus gets wrong.
            places = [1, *range(8, 12), *range(16, len(good))]
            flood = b""
            for _ in range(500):
                bad = bytearray(good)
                bad[random.choice(places)] ^= random.randrange(1, 256)
                flood += bad
            await tasks.to_thread(fake.raw, flood)
            fake.send(_GOOD, message.call(5, ":1.0", TOP, IFACE, "Last"))
            await _until(lambda: "Last" in seen)

    loop.run(go())


def test_malformed_bodies(each_bus: PrivateBus) -> None:
    """dbus-broker does not look into bodies."""

    async def go() -> None:
        async with serving(each_bus.address):
            bodies = [b"\xff\xff\xff\x7f", b"\x01\0\0\0\xff\0", b"", bytes(5000)]
            for body in bodies:
                with RawClient(each_bus.address) as client:
                    call = bytearray(message.call(client.serial(), NAME, TOP, IFACE, "Echo", "s", [""]))
                    call[4:8] = pack("<I", len(body))
                    # dbus-daemon looks into bodies, and ends this client.
                    with suppress(ConnectionError):
                        client.send(bytes(call[:-5]) + body)
                        answer = await tasks.to_thread(client.receive)
                        while answer.header.kind == Kind.SIGNAL:
                            answer = await tasks.to_thread(client.receive)
                        assert answer.header.error_name == errors.InvalidArgs.name
            await _still_serves(each_bus)

    loop.run(go())


def test_foreign_signatures_are_not_kept(each_bus: PrivateBus) -> None:
    """Row: "the signature cache is unbounded"."""

    async def go() -> None:
        async with serving(each_bus.address):
            with RawClient(each_bus.address) as client:
                assert await client.ask(NAME, TOP, IFACE, "Options", "a{sv}", [{}]) == []
                known = len(SignatureTree._cache)
                for number in range(200):
                    signature = "a(" + bin(number)[2:].replace("0", "y").replace("1", "u") + ")"
                    raw = bytes([len(signature)]) + signature.encode() + b"\0"
                    entry = b"\x01\0\0\0k\0" + raw
                    entry += bytes(-len(entry) % 4) + bytes(4)
                    entry += bytes(-len(entry) % 8)
                    call = message.call(client.serial(), NAME, TOP, IFACE, "Options", "a{sv}", [{}])
                    data = bytearray(call[:-8] + pack("<II", len(entry), 0) + entry)
                    data[4:8] = pack("<I", 8 + len(entry))
                    data[2] |= _QUIET
                    client.send(bytes(data))
                    other = bytearray(message.call(client.serial(), NAME, TOP, IFACE, "Options"))
                    extra = b"\x08\x01g\0" + raw
                    other[4:8] = pack("<I", 8)
                    other[2] |= _QUIET
                    client.send(_with_field(bytes(other), extra) + bytes(8))
                assert await client.ask(NAME, TOP, IFACE, "Echo", "s", ["x"]) == ["x"]
                assert len(SignatureTree._cache) == known

    loop.run(go())


def test_the_reader_yields(tmp_path: Path) -> None:
    """Row: "the reader never yields"."""

    async def go() -> None:
        async with faking(tmp_path) as (fake, connection):
            handled = [0]

            def count(_: message.Message) -> bool:
                handled[0] += 1
                return True

            connection.add_message_handler(count)
            call = stamped(_EVIL, message.call(5, ":1.0", TOP, IFACE, "Echo", flags=_QUIET))
            flood = tasks.create_task(tasks.to_thread(fake.raw, call * 20_000))
            most = last = 0
            async with tasks.timeout(60):
                while handled[0] < 20_000:
                    await tasks.sleep(0)
                    most, last = max(most, handled[0] - last), handled[0]
            await flood
            # One turn from the socket and one that was left from before it.
            assert 0 < most <= 2 * 64

    loop.run(go())


def test_a_flood_does_not_hold_up_others(tmp_path: Path) -> None:
    """Row: "4 s of no-reply calls delayed another caller by 22 s"."""

    async def go() -> None:
        async with faking(tmp_path) as (fake, connection):
            order: list[str] = []
            connection.add_message_handler(_into(order, lambda x: x.header.sender))
            flood = stamped(_EVIL, message.call(5, ":1.0", TOP, IFACE, "Echo", flags=_QUIET))
            polite = stamped(_GOOD, message.call(5, ":1.0", TOP, IFACE, "Echo", flags=_QUIET))
            # All of it lies in the socket before the connection reads the first byte.
            fake.raw(flood * 700 + polite + flood * 700)
            await _until(lambda: len(order) == 1401)
            assert order.index(_GOOD) < 350

    loop.run(go())


def test_two_clients_that_do_not_read(each_bus: PrivateBus) -> None:
    """Row: "the writer treats EAGAIN as the end": 2 connections with 96 calls outstanding each."""

    async def go() -> None:
        async with serving(each_bus.address):
            with RawClient(each_bus.address) as one, RawClient(each_bus.address) as two:
                text = "x" * 20_000
                for _ in range(5):
                    pairs = [
                        (client, client.post(NAME, TOP, IFACE, "Echo", "s", [text]))
                        for _ in range(96)
                        for client in (one, two)
                    ]
                    for client, serial in pairs:
                        answer = await tasks.to_thread(client.answer, serial)
                        assert answer.values() == [text]
            await _still_serves(each_bus)

    loop.run(go())


def test_back_pressure_instead_of_loss(tmp_path: Path) -> None:
    """Row: "the writer treats EAGAIN as the end": a bus that does not read stops our reading."""

    async def go() -> None:
        async with faking(tmp_path) as (fake, connection):
            count, size = 400, 20_000
            served = 0

            def serve(received: message.Message) -> bool:
                nonlocal served
                served += 1
                serial = connection.next_serial()
                connection.send(message.reply(serial, received.header, "s", ["x" * size]))
                return True

            connection.add_message_handler(serve)
            calls = b"".join(
                stamped(_GOOD, message.call(5 + x, ":1.0", TOP, IFACE, "Echo")) for x in range(count)
            )
            fake.raw(calls)
            await _until(lambda: served * size > (1 << 20))
            for _ in range(50):
                await tasks.sleep(0)
            held = served
            assert held < count
            answers = await tasks.to_thread(lambda: [fake.receive() for _ in range(count)])
            assert [x.header.reply_serial for x in answers] == list(range(5, 5 + count))
            assert {len(x.values()[0]) for x in answers} == {size}

    loop.run(go())


@pytest.mark.parametrize(
    ("member", "error"), [("Nothing", errors.UnknownMethod), ("Options", errors.LimitsExceeded)]
)
def test_a_large_message_is_not_parsed(
    each_bus: PrivateBus, member: str, error: type[errors.BusError]
) -> None:
    """Row: "a 30 MB array to a method that does not exist"."""

    async def go() -> None:
        async with serving(each_bus.address):
            with RawClient(each_bus.address) as client:
                with pytest.raises(BusReplyError) as caught:
                    await client.ask(NAME, TOP, IFACE, member, "ay", [bytes(30_000_000)])
                assert caught.value.name == error.name
                assert await client.ask(NAME, TOP, IFACE, "Echo", "s", ["x"]) == ["x"]

    loop.run(go())


def test_descriptors_are_closed(each_bus: PrivateBus) -> None:
    """Row: "fds on any message leak when fd passing is negotiated"."""

    async def go() -> None:
        async with serving(each_bus.address) as service:
            assert service.connection.unix_fds
            with RawClient(each_bus.address) as client:
                before = _open_descriptors()
                for _ in range(40):
                    client.post(NAME, TOP, IFACE, "Echo", "s", ["x"], flags=_QUIET, fds=[0] * 16)
                assert await client.ask(NAME, TOP, IFACE, "Echo", "s", ["x"]) == ["x"]
                assert _open_descriptors() == before

    loop.run(go())


def test_descriptors_of_malformed_messages_are_closed(tmp_path: Path) -> None:
    """Row: "fds on any message leak": also of what is no message, and more than anybody may send."""

    async def go() -> None:
        async with faking(tmp_path) as (fake, connection):
            before = _open_descriptors()
            good = stamped(_GOOD, message.call(5, ":1.0", TOP, IFACE, "Echo"))
            bad = bytearray(good)
            bad[8:12] = bytes(4)
            fake.raw(bytes(bad), [0] * 253)
            fake.raw(good, [0] * 253)
            answer = await tasks.to_thread(fake.receive)
            assert answer.header.error_name == errors.UnknownMethod.name
            assert _open_descriptors() == before
            fake.raw(b"garbage, and no message at all", [0] * 253)
            await connection.wait_for_disconnect()
            assert _open_descriptors() == before - 1

    loop.run(go())


def test_own_descriptors_are_closed_when_they_cannot_be_sent(tmp_path: Path) -> None:
    async def go() -> None:
        async with faking(tmp_path) as (fake, connection):
            before = _open_descriptors()
            header = message.parse(_frame(fake, message.call(5, ":1.0", TOP, IFACE, "Open"))).header
            reply = message.reply(connection.next_serial(), header, "h", [0], fds=1)
            connection.send(reply, [os.dup(0)])
            assert _open_descriptors() == before
            fake.client.close()
            await connection.wait_for_disconnect()
            connection.send(reply, [os.dup(0)])
            assert _open_descriptors() == before - 2

    loop.run(go())


def test_queued_replies_leave_before_the_end(tmp_path: Path) -> None:
    """Row: "`disconnect()` drops queued replies and leaves the socket open"."""

    async def go() -> None:
        async with faking(tmp_path) as (fake, connection):
            signals = 50
            for _ in range(signals):
                data = message.signal(connection.next_serial(), TOP, IFACE, "Happened", "s", ["x" * 50_000])
                connection.send(data)
            closing = tasks.create_task(connection.close())
            received = await tasks.to_thread(lambda: [fake.receive() for _ in range(signals)])
            await closing
            assert len(received) == signals
            with pytest.raises(ConnectionError):
                fake.receive()

    loop.run(go())


def test_half_a_message_costs_no_time(tmp_path: Path) -> None:
    async def go() -> None:
        async with faking(tmp_path) as (fake, connection):
            seen: list[message.Message] = []
            connection.add_message_handler(_into(seen, lambda x: x))
            call = stamped(_EVIL, message.call(5, ":1.0", TOP, IFACE, "Echo", "s", ["x"]))
            fake.raw(call + call[:50])
            await _until(lambda: len(seen) == 1)
            # Where nothing else is ready, the loop sleeps: this is the processor's time, not the clock's.
            before = time.process_time()
            await tasks.sleep(0.5)
            assert time.process_time() - before < 0.25
            fake.raw(call[50:])
            await _until(lambda: len(seen) == 2)

    loop.run(go())


def test_random_bytes_in_every_place(each_bus: PrivateBus) -> None:
    """Whatever one client sends ends at most that client."""

    async def go() -> None:
        async with serving(each_bus.address):
            random.seed(11)
            call = message.call(9, NAME, TOP, PROPERTIES, "Set", "ssv", [IFACE, "Colour", Variant("s", "x")])
            for _ in range(60):
                with RawClient(each_bus.address) as client:
                    for _ in range(10):
                        bad = bytearray(call)
                        bad[random.randrange(len(bad))] = random.randrange(256)
                        try:
                            client.send(bytes(bad))
                        except (BrokenPipeError, ConnectionResetError):
                            break
            await _still_serves(each_bus)

    loop.run(go())


def _into(seen: list[Any], what: Callable[[message.Message], Any]) -> MessageHandler:
    def handler(received: message.Message) -> bool:
        seen.append(what(received))
        return True

    return handler


async def _until(condition: Any) -> None:
    async with tasks.timeout(60):
        while not condition():  # what is waited for has no event of its own
            await tasks.sleep(0)


def _frame(fake: FakeBus, data: bytes) -> Any:
    from nestd.wire.frame import Framer

    framer = Framer()
    framer.feed(stamped(_GOOD, data))
    return framer.next()
