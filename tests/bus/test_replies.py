# SPDX-License-Identifier: LGPL-2.1-or-later
"""Replies kept as bytes: quick, and never another answer than the one that would be made now."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from struct import pack
from typing import Any

import pytest

from nestd import errors, tasks
from nestd.bus.exported import Call, Exported, Handler
from nestd.bus.replies import Replies
from nestd.wire import message
from nestd.wire.frame import Frame, Framer
from nestd.wire.header import Flag
from tests.bus.fakebus import stamped
from tests.bus.rawclient import BusReplyError, RawClient
from tests.bus.service import IFACE, NAME, PROPERTIES, TOP, Thing, serving
from tests.support import loop
from tests.support.privatebus import PrivateBus

_MANAGER = "org.freedesktop.DBus.ObjectManager"
_ROUNDS = 300
_EVIL, _GOOD = ":1.66", ":1.7"


@dataclass
class Counting(Thing):
    """Counts how often its properties are asked for; Echo answers of its colour, and is pure."""

    asked: int = 0
    made: int = 0

    @property
    def methods(self) -> Mapping[str, Handler]:
        return {**super().methods, "Echo": Handler(self._seen, self._echo, pure=True)}

    def properties(self) -> Mapping[str, Any]:
        self.asked += 1
        return super().properties()

    def _seen(self, call: Call) -> tuple[str, str]:
        return call.arguments[0], self.colour

    def _echo(self, seen: tuple[str, str], _: Call) -> Sequence[Any]:
        self.made += 1
        return [" ".join(seen)]


def _frame(data: bytes) -> Frame:
    framer = Framer()
    framer.feed(data)
    frame = framer.next()
    assert frame is not None
    return frame


def _get_all(serial: int, sender: str = _GOOD, flags: Flag = Flag(0)) -> bytes:  # noqa: B008
    call = message.call(serial, NAME, TOP, PROPERTIES, "GetAll", "s", [IFACE], flags=flags)
    return stamped(sender, call)


def _big_endian(serial: int) -> bytes:
    """The call of Ping at /, in the other byte order."""
    fields = b"\1\1o\0" + pack(">I", 1) + b"/\0" + bytes(6) + b"\3\1s\0" + pack(">I", 4) + b"Ping\0"
    return pack(">cBBBIII", b"B", 1, 0, 1, 0, serial, len(fields)) + fields + bytes(-len(fields) % 8)


def test_calls_are_alike_that_differ_in_nothing_but_the_serial() -> None:
    parser = message.Parser()
    first = parser.parse(_frame(_get_all(7)))
    again = parser.parse(_frame(_get_all(0x01020304)))
    assert first.alike == again.alike != b""
    assert again == message.parse(_frame(_get_all(0x01020304)))._replace(alike=first.alike)
    for other in (
        _get_all(7, _EVIL),
        _get_all(7, flags=Flag.NO_REPLY_EXPECTED),
        stamped(_GOOD, message.call(7, NAME, TOP, PROPERTIES, "GetAll", "s", ["x" + IFACE[1:]])),
        stamped(_GOOD, message.call(7, NAME, TOP, PROPERTIES, "GetAll", "s", [IFACE], fds=1)),
    ):
        assert parser.parse(_frame(other)).alike not in (first.alike, b"")


def test_the_header_of_a_big_endian_call_is_taken_over_with_its_own_serial() -> None:
    parser = message.Parser()
    assert [parser.parse(_frame(_big_endian(x))).header.serial for x in (5, 0x01020304)] == [5, 0x01020304]
    assert parser.parse(_frame(_big_endian(6))).header == message.parse(_frame(_big_endian(6))).header


@pytest.mark.parametrize("call", [_get_all, _big_endian], ids=["little", "big"])
def test_a_serial_of_0_is_refused_although_the_rest_is_known(call: Any) -> None:
    parser = message.Parser()
    parser.parse(_frame(call(1)))
    zero = bytearray(call(1))
    zero[8:12] = bytes(4)
    with pytest.raises(errors.Malformed, match="serial 0"):
        parser.parse(_frame(bytes(zero)))


def test_long_calls_and_other_messages_are_not_compared() -> None:
    parser = message.Parser()
    long = message.call(1, NAME, TOP, PROPERTIES, "GetAll", "s", ["x" * 2000])
    assert parser.parse(_frame(long)).alike == b""
    assert parser.parse(_frame(message.signal(1, TOP, IFACE, "Happened"))).alike == b""


@pytest.mark.parametrize("call", [_get_all(77), stamped(_GOOD, message.call(77, NAME, TOP, IFACE, "Ping"))])
def test_again_is_the_reply_that_would_have_been_written(call: bytes) -> None:
    caller = message.parse(_frame(call)).header
    for signature, values in (("s", ["text"]), ("", []), ("a{sv}", [{}])):
        before = message.reply(5, caller._replace(serial=12), signature, values)
        assert message.again(before, 0xFFFFFFFF, caller) == message.reply(
            0xFFFFFFFF, caller, signature, values
        )


def test_what_is_kept_is_bounded() -> None:
    """By bytes, whatever one sender asks; and what is too large alone is not kept."""
    replies = Replies()
    parser = message.Parser()
    most = 0
    for number in range(5000):
        call = parser.parse(_frame(_get_all(1, f":1.{number}")))
        replies.keep(call, bytes(1000), lambda: 1, 1)
        assert replies.find(call) == bytes(1000)
        most = max(most, len(replies))
    assert 100 < most < 600
    huge = parser.parse(_frame(_get_all(1)))
    replies.keep(huge, bytes(1 << 20), lambda: 1, 1)
    assert replies.find(huge) is None


def test_a_reply_is_forgotten_once_it_is_made_of_something_else() -> None:
    replies = Replies()
    call = message.Parser().parse(_frame(_get_all(1)))
    now = ["red"]
    replies.keep(call, b"red", lambda: list(now), ["red"])
    assert replies.find(call) == b"red"
    now[0] = "blue"
    assert replies.find(call) is None
    now[0] = "red"
    assert replies.find(call) is None and len(replies) == 0


def test_the_same_question_is_worked_out_once_for_each_caller(each_bus: PrivateBus) -> None:
    async def go() -> None:
        async with serving(each_bus.address) as service:
            service.dispatcher.withdraw(TOP)
            thing = Counting()
            service.dispatcher.export(TOP, thing)
            asked = thing.asked
            with RawClient(each_bus.address) as one, RawClient(each_bus.address) as other:
                for client in (one, other, one, other, one):
                    [told] = await client.ask(NAME, TOP, PROPERTIES, "GetAll", "s", [IFACE])
                    assert told["Colour"].value == "red\N{REPLACEMENT CHARACTER}"
                    assert await client.ask(NAME, TOP, IFACE, "Echo", "s", ["x"]) == [
                        "x red\N{REPLACEMENT CHARACTER}"
                    ]
            assert (thing.asked - asked, thing.made) == (2, 2)

    loop.run(go())


def test_no_reply_is_sent_to_who_wants_none(bus: PrivateBus) -> None:
    async def go() -> None:
        async with serving(bus.address):
            with RawClient(bus.address) as client:
                question = (NAME, TOP, PROPERTIES, "GetAll", "s", [IFACE])
                for _ in range(2):
                    await client.ask(*question)
                    quiet = client.post(*question, flags=Flag.NO_REPLY_EXPECTED)
                    wanted = client.post(*question)
                    seen = []
                    while wanted not in seen:
                        seen.append((await tasks.to_thread(client.receive)).header.reply_serial)
                    assert quiet not in seen

    loop.run(go())


def test_each_call_is_authorized_anew(bus: PrivateBus) -> None:
    """One that was open to a caller yesterday is not for that reason open today."""
    verdicts = [True]

    def authorize(call: Call, _: Any, __: Exported) -> Any:
        if not verdicts[0]:
            raise errors.AccessDenied(f"{call.member} is not for you.")

    async def go() -> None:
        async with serving(bus.address, authorize) as service:
            service.dispatcher.withdraw(TOP)
            thing = Counting(colour="red")
            service.dispatcher.export(TOP, thing)
            with RawClient(bus.address) as client:
                for verdict in (True, True, False, True):
                    verdicts[0] = verdict
                    if verdict:
                        assert await client.ask(NAME, TOP, IFACE, "Echo", "s", ["x"]) == ["x red"]
                    else:
                        with pytest.raises(BusReplyError, match="AccessDenied"):
                            await client.ask(NAME, TOP, IFACE, "Echo", "s", ["x"])
            assert thing.made == 1

    loop.run(go())


def test_an_authorization_that_has_to_be_asked_for_is_asked_for_each_time(bus: PrivateBus) -> None:
    asked: list[str] = []

    slow = [False]

    async def ask(member: str) -> None:
        asked.append(member)

    def authorize(call: Call, _: Any, __: Exported) -> Any:
        return ask(call.member) if slow[0] else None

    async def go() -> None:
        async with serving(bus.address, authorize) as service:
            service.dispatcher.withdraw(TOP)
            service.dispatcher.export(TOP, Counting(colour="red"))
            with RawClient(bus.address) as client:
                for slow[0] in (False, False, True, True, False):
                    assert await client.ask(NAME, TOP, IFACE, "Echo", "s", ["x"]) == ["x red"]
        assert asked == ["Echo", "Echo"]

    loop.run(go())


def test_objects_that_come_and_go(bus: PrivateBus) -> None:
    below = f"{TOP}/below"

    async def go() -> None:
        async with serving(bus.address) as service:
            with RawClient(bus.address) as client:

                async def shown() -> tuple[bool, bool]:
                    [objects] = await client.ask(NAME, TOP, _MANAGER, "GetManagedObjects")
                    introspectable = "org.freedesktop.DBus.Introspectable"
                    [text] = await client.ask(NAME, TOP, introspectable, "Introspect")
                    return below in objects, '<node name="below"/>' in text

                for _ in range(2):
                    assert await shown() == (False, False)
                    service.dispatcher.export(below, Thing())
                    assert await shown() == (True, True)
                    question = (NAME, below, PROPERTIES, "Get", "ss", [IFACE, "Colour"])
                    assert await client.ask(*question) == await client.ask(*question)
                    service.dispatcher.withdraw(below)
                    with pytest.raises(BusReplyError, match="UnknownObject"):
                        await client.ask(*question)

    loop.run(go())


def test_no_reply_is_older_than_what_was_announced(each_bus: PrivateBus) -> None:
    """A racing client: its questions are on their way all the time while the property changes.

    Messages of one sender stay in order, so what follows PropertiesChanged must not say less than it.
    """
    questions: tuple[tuple[tuple[Any, ...], Callable[[Any], int]], ...] = (
        ((NAME, TOP, PROPERTIES, "Get", "ss", [IFACE, "Colour"]), lambda x: int(x.value)),
        ((NAME, TOP, PROPERTIES, "GetAll", "s", [IFACE]), lambda x: int(x["Colour"].value)),
        ((NAME, TOP, IFACE, "Echo", "s", ["x"]), lambda x: int(x.split()[1])),
    )

    def race(client: RawClient) -> int:
        """Keep 30 questions under way until the last value is told; how many answers there were."""
        waiting = {client.post(*questions[x % 3][0]): x % 3 for x in range(30)}
        announced = answers = 0
        while announced < _ROUNDS:
            received = client.receive()
            values = received.values()
            if received.header.member == "PropertiesChanged":
                announced = int(values[1]["Colour"].value)
            elif (number := waiting.pop(received.header.reply_serial, None)) is not None:
                question, read = questions[number]
                assert read(values[0]) >= announced
                waiting[client.post(*question)] = number
                answers += 1
        return answers

    async def go() -> None:
        async with serving(each_bus.address) as service:
            service.dispatcher.withdraw(TOP)
            thing = Counting(colour="0")
            service.dispatcher.export(TOP, thing)
            with RawClient(each_bus.address) as client:
                rule = "type='signal',interface='org.freedesktop.DBus.Properties'"
                bus = "org.freedesktop.DBus"
                await client.ask(bus, "/org/freedesktop/DBus", bus, "AddMatch", "s", [rule])
                racing = tasks.create_task(tasks.to_thread(race, client))
                for number in range(1, _ROUNDS + 1):
                    thing.colour = str(number)
                    service.dispatcher.changed(TOP, IFACE, {"Colour": thing.colour})
                    await tasks.sleep(0.001)
                answers = await racing
            # Some were answered from what was kept, or nothing was tried here.
            assert thing.made < answers / 3

    loop.run(go())
