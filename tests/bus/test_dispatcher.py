# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a client sees of an exported object."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import pytest

from nestd import errors, tasks
from nestd.bus import interface as description
from nestd.bus.callers import HELD, PER_CALLER
from nestd.bus.exported import Call, Exported
from nestd.wire.header import Flag, Kind
from nestd.wire.library import Variant
from tests.bus.rawclient import BUS, BusReplyError, RawClient
from tests.bus.service import IFACE, NAME, PROPERTIES, TOP, XML, Service, Thing, serving
from tests.support import loop
from tests.support.privatebus import PrivateBus

_PEER = "org.freedesktop.DBus.Peer"
_MANAGER = "org.freedesktop.DBus.ObjectManager"
_INTROSPECT = ("org.freedesktop.DBus.Introspectable", "Introspect")


async def _error(client: RawClient, *arguments: Any) -> BusReplyError:
    with pytest.raises(BusReplyError) as caught:
        await client.ask(*arguments)
    return caught.value


async def _busctl(bus: PrivateBus, *arguments: str) -> str:
    argv = ["busctl", f"--address={bus.address}", *arguments]
    done = await tasks.to_thread(
        lambda: subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=False, timeout=20)
    )
    return done.stdout


def test_busctl_understands_the_service(bus: PrivateBus) -> None:
    async def go() -> None:
        async with serving(bus.address) as service:
            assert await _busctl(bus, "call", NAME, TOP, IFACE, "Echo", "s", "hi") == 's "hi"\n'
            assert await _busctl(bus, "get-property", NAME, TOP, IFACE, "Mood") == 'as 2 "good" "bad"\n'
            tree = await _busctl(bus, "tree", "--list", NAME)
            assert tree.split() == ["/", "/org", TOP]
            listing = await _busctl(bus, "introspect", NAME, TOP)
            assert f"{IFACE} " in listing
            assert ".Colour" in listing
            await _busctl(bus, "call", NAME, TOP, IFACE, "Options", "a{sv}", "1", "a", "s", "b")
            assert service.thing.calls[-1].interactive

    loop.run(go())


def test_a_handler_has_its_caller(bus: PrivateBus) -> None:
    async def go() -> None:
        async with serving(bus.address) as service:
            with RawClient(bus.address) as client:
                await client.ask(NAME, TOP, IFACE, "Options", "a{sv}", [{"a": Variant("u", 7)}])
                call = service.thing.calls[-1]
                arguments = ({"a": Variant("u", 7)},)
                assert call == Call(client.unique_name, TOP, IFACE, "Options", arguments, False)

    loop.run(go())


def test_properties(bus: PrivateBus) -> None:
    async def go() -> None:
        async with serving(bus.address):
            with RawClient(bus.address) as client:
                colour = Variant("s", "red\ufffd")
                everything = {
                    "Colour": colour,
                    "Size": Variant("u", 3),
                    "Mood": Variant("as", ["good", "bad"]),
                }
                assert await client.ask(NAME, TOP, PROPERTIES, "Get", "ss", [IFACE, "Colour"]) == [colour]
                for interface in (IFACE, ""):
                    assert await client.ask(NAME, TOP, PROPERTIES, "GetAll", "s", [interface]) == [everything]
                assert await client.ask(NAME, TOP, PROPERTIES, "GetAll", "s", [_PEER]) == [{}]
                value = Variant("s", "x")
                for member, names, error in [
                    ("Get", (IFACE, "Nothing"), errors.UnknownProperty),
                    ("Get", (_PEER, "Nothing"), errors.UnknownProperty),
                    ("Get", ("no.such", "Colour"), errors.UnknownInterface),
                    ("Set", (IFACE, "Nothing", value), errors.UnknownProperty),
                    ("Set", (IFACE, "Colour", value), errors.PropertyReadOnly),
                    ("GetAll", ("no.such",), errors.UnknownInterface),
                ]:
                    signature = {"Get": "ss", "Set": "ssv", "GetAll": "s"}[member]
                    told = await _error(client, NAME, TOP, PROPERTIES, member, signature, list(names))
                    assert told.name == error.name

    loop.run(go())


def test_peer(bus: PrivateBus) -> None:
    """facts.md: "Peer.GetMachineId never answers"."""

    async def go() -> None:
        async with serving(bus.address):
            with RawClient(bus.address) as client:
                assert await client.ask(NAME, TOP, _PEER, "GetMachineId") == ["0123456789abcdef" * 2]
                assert await client.ask(NAME, "/anywhere", _PEER, "Ping") == []

    loop.run(go())


def test_the_xml_is_served_verbatim(bus: PrivateBus) -> None:
    """facts.md: "the XML has no out-argument names, annotations or docs"."""

    async def go() -> None:
        async with serving(bus.address) as service:
            service.dispatcher.export(f"{TOP}/guest/a", Thing())
            with RawClient(bus.address) as client:
                [text] = await client.ask(NAME, TOP, *_INTROSPECT)
                ours = XML[XML.index("<interface") : XML.index("</interface>") + len("</interface>")]
                assert ours in text
                assert '<node name="guest"/>' in text
                names = [IFACE, PROPERTIES, _PEER, _MANAGER, "org.freedesktop.DBus.Introspectable"]
                assert sorted(description.parse(text)) == sorted(names)
                for path, child in [("/", "org"), ("/org", "nestd1"), (f"{TOP}/guest", "a")]:
                    [text] = await client.ask(NAME, path, *_INTROSPECT)
                    assert f'<node name="{child}"/>' in text
                    assert text.count("<node name") == 1
                told = await _error(client, NAME, "/nothing", *_INTROSPECT)
                assert told.name == errors.UnknownObject.name

    loop.run(go())


def test_objects_come_and_go(bus: PrivateBus) -> None:
    """facts.md: "InterfacesAdded comes from the wrong path"."""

    async def go() -> None:
        path = f"{TOP}/guest/a"
        async with serving(bus.address) as service:
            with RawClient(bus.address) as client:
                await client.ask(BUS, "/", BUS, "AddMatch", "s", [f"sender='{NAME}'"])
                assert await client.ask(NAME, TOP, _MANAGER, "GetManagedObjects") == [{}]
                service.dispatcher.export(path, Thing())
                added = await tasks.to_thread(client.signal, "InterfacesAdded")
                values = {x: y for x, y in added.values()[1][IFACE].items() if x == "Size"}
                assert (added.header.path, added.values()[0], values) == (
                    TOP,
                    path,
                    {"Size": Variant("u", 3)},
                )
                [managed] = await client.ask(NAME, TOP, _MANAGER, "GetManagedObjects")
                assert list(managed) == [path]
                service.dispatcher.withdraw(path)
                removed = await tasks.to_thread(client.signal, "InterfacesRemoved")
                assert (removed.header.path, removed.values()) == (TOP, [path, [IFACE]])
                told = await _error(client, NAME, path, IFACE, "Echo", "s", ["x"])
                assert told.name == errors.UnknownObject.name

    loop.run(go())


def test_signals(bus: PrivateBus) -> None:
    async def go() -> None:
        async with serving(bus.address) as service:
            with RawClient(bus.address) as client:
                await client.ask(BUS, "/", BUS, "AddMatch", "s", [f"sender='{NAME}'"])
                service.dispatcher.emit(TOP, IFACE, "Happened", "it")
                told = await tasks.to_thread(client.signal, "Happened")
                assert (told.header.path, told.values()) == (TOP, ["it"])
                service.dispatcher.changed(TOP, IFACE, {"Colour": "blue", "Mood": ()})
                told = await tasks.to_thread(client.signal, "PropertiesChanged")
                assert told.values() == [IFACE, {"Colour": Variant("s", "blue")}, ["Mood"]]
            with pytest.raises(ValueError, match="Size"):
                service.dispatcher.changed(TOP, IFACE, {"Size": 4})
            with pytest.raises(KeyError):
                service.dispatcher.emit(TOP, IFACE, "Nothing")

    loop.run(go())


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        pytest.param(("/nothing", IFACE, "Echo", "s", ["x"]), errors.UnknownObject, id="path"),
        pytest.param((TOP, "no.such", "Echo", "s", ["x"]), errors.UnknownInterface, id="interface"),
        pytest.param((TOP, IFACE, "Nothing"), errors.UnknownMethod, id="member"),
        pytest.param((TOP, "", "Nothing"), errors.UnknownMethod, id="member without interface"),
        pytest.param((TOP, "", "Ping"), errors.InvalidArgs, id="ambiguous without interface"),
        pytest.param((TOP, IFACE, "Echo", "u", [1]), errors.InvalidArgs, id="type"),
        pytest.param((TOP, IFACE, "Echo"), errors.InvalidArgs, id="no arguments"),
        pytest.param((TOP, IFACE, "Fail", "s", ["busy"]), errors.Busy, id="closed error"),
        pytest.param((TOP, IFACE, "Fail", "s", ["bug"]), errors.Failed, id="bug"),
        pytest.param((TOP, IFACE, "Fail", "s", ["later"]), errors.Failed, id="bug in a coroutine"),
        pytest.param((TOP, IFACE, "Fail", "s", ["cancelled"]), errors.Failed, id="CancelledError"),
        pytest.param((TOP, IFACE, "Fail", "s", ["cancelled at once"]), errors.Failed, id="at once"),
        pytest.param((TOP, IFACE, "Fail", "s", ["surplus"]), errors.Failed, id="too many values out"),
    ],
)
def test_errors_are_closed(bus: PrivateBus, arguments: tuple[Any, ...], error: type[errors.BusError]) -> None:
    """facts.md: "an exception sends its traceback", "a handler that raises CancelledError sends no reply"."""

    async def go() -> None:
        async with serving(bus.address):
            with RawClient(bus.address) as client:
                told = await _error(client, NAME, *arguments)
                assert told.name == error.name
                assert "secret" not in told.text
                assert "Traceback" not in told.text
                assert await client.ask(NAME, TOP, IFACE, "Echo", "s", ["on"]) == ["on"]

    loop.run(go())


def test_a_call_without_interface(bus: PrivateBus) -> None:
    async def go() -> None:
        async with serving(bus.address):
            with RawClient(bus.address) as client:
                assert await client.ask(NAME, TOP, "", "Echo", "s", ["x"]) == ["x"]

    loop.run(go())


def test_no_reply_where_none_is_expected(bus: PrivateBus) -> None:
    async def go() -> None:
        async with serving(bus.address) as service:
            with RawClient(bus.address) as client:
                quiet = Flag.NO_REPLY_EXPECTED
                client.post(NAME, TOP, IFACE, "Options", "a{sv}", [{}], flags=quiet)
                client.post(NAME, TOP, IFACE, "Nothing", flags=quiet)
                client.post(NAME, TOP, IFACE, "Open", flags=quiet)
                client.post(NAME, TOP, IFACE, "Ping", flags=quiet)  # it only reads
                client.post(NAME, TOP, PROPERTIES, "GetAll", "s", [IFACE], flags=quiet)
                serial = client.post(NAME, TOP, IFACE, "Echo", "s", ["end"])
                received = await tasks.to_thread(client.receive)
                while received.header.kind == Kind.SIGNAL:
                    received = await tasks.to_thread(client.receive)
                assert received.header.reply_serial == serial
                assert [call.member for call in service.thing.calls] == ["Options"]

    loop.run(go())


def test_a_descriptor_goes_out(bus: PrivateBus) -> None:
    async def go() -> None:
        async with serving(bus.address):
            with RawClient(bus.address) as client:
                assert await client.ask(NAME, TOP, IFACE, "Open") == [0]
                [fd] = client.fds
                assert os.read(fd, 100) == b"hello"

    loop.run(go())


def test_the_caller_that_leaves_cancels_its_calls(bus: PrivateBus) -> None:
    async def go() -> None:
        async with serving(bus.address) as service:
            with RawClient(bus.address) as stays, RawClient(bus.address) as leaves:
                stays.post(NAME, TOP, IFACE, "Wait")
                leaves.post(NAME, TOP, IFACE, "Wait")
                leaves.post(NAME, TOP, IFACE, "Wait")
                await service.thing.until_waiting(3)
                leaves.close()
                await service.thing.until_waiting(1)
                assert service.thing.cancelled == 2

    loop.run(go())


def test_a_caller_that_left_before_its_call_was_read(bus: PrivateBus) -> None:
    async def go() -> None:
        async with serving(bus.address) as service:
            for _ in range(20):
                client = RawClient(bus.address)
                client.post(NAME, TOP, IFACE, "Wait")
                client.close()
            await service.thing.until_called(20)
            await service.thing.until_waiting(0)

    loop.run(go())


def test_calls_under_way_are_bounded_for_each_caller(bus: PrivateBus) -> None:
    async def go() -> None:
        async with serving(bus.address) as service:
            with RawClient(bus.address) as greedy, RawClient(bus.address) as other:
                for _ in range(PER_CALLER):
                    greedy.post(NAME, TOP, IFACE, "Wait")
                told = await _error(greedy, NAME, TOP, IFACE, "Wait")
                assert told.name == errors.LimitsExceeded.name
                other.post(NAME, TOP, IFACE, "Wait")
                await service.thing.until_waiting(PER_CALLER + 1)
                assert await greedy.ask(NAME, TOP, IFACE, "Echo", "s", ["x"]) == ["x"]

    loop.run(go())


def test_what_calls_under_way_hold_is_bounded_for_all_together(bus: PrivateBus) -> None:
    """Everybody's calls wait for polkit with all that they carry, and nestd's unit has 256 MiB."""
    long = (NAME, TOP, IFACE, "Options", "a{sv}", [{"user-data": Variant("ay", bytes(600_000))}])
    fit = HELD // 596_000  # what is short of each is not counted

    async def asked() -> None:
        await tasks.Event().wait()

    def authorize(call: Call, _: Any, __: Exported) -> Any:
        return asked() if call.member == "Options" else None

    async def go() -> None:
        async with serving(bus.address, authorize):
            clients = [RawClient(bus.address) for _ in range(fit // PER_CALLER + 1)]
            for number in range(fit):
                await tasks.to_thread(clients[number // PER_CALLER].post, *long)
            for client in clients:
                assert await client.ask(NAME, TOP, IFACE, "Echo", "s", ["x"]) == ["x"]
            with RawClient(bus.address) as other:
                told = await _error(other, *long)
                assert told.name == errors.LimitsExceeded.name
                # What is short is served all the same.
                other.post(NAME, TOP, IFACE, "Options", "a{sv}", [{}])
                other.post(NAME, TOP, IFACE, "Wait")
                assert await other.ask(NAME, TOP, IFACE, "Echo", "s", ["x"]) == ["x"]
            for client in clients:
                client.close()

    loop.run(go())


def test_whoever_waits_is_told_when_the_service_ends(bus: PrivateBus) -> None:
    """facts.md: "`disconnect()` drops queued replies and leaves the socket open"."""

    async def go() -> None:
        with RawClient(bus.address) as client:
            async with serving(bus.address) as service:
                serials = {client.post(NAME, TOP, IFACE, "Wait") for _ in range(3)}
                await service.thing.until_waiting(3)
            told: dict[int, str] = {}
            while told.keys() != serials:
                header = (await tasks.to_thread(client.receive)).header
                if header.kind != Kind.SIGNAL:
                    told[header.reply_serial] = header.error_name
            assert set(told.values()) == {errors.Failed.name}

    loop.run(go())


def test_the_order_is_validate_authorize_act(bus: PrivateBus) -> None:
    async def refuse(call: Call) -> None:
        raise errors.AccessDenied(f"{call.member}: no.")

    def authorize(call: Call, _: Any, __: Exported) -> Any:
        return refuse(call) if call.member == "Guarded" else None

    async def go() -> None:
        async with serving(bus.address, authorize) as service:
            with RawClient(bus.address) as client:
                told = await _error(client, NAME, TOP, IFACE, "Guarded")
                assert told.name == errors.AccessDenied.name
                assert service.thing.calls == []

    loop.run(go())


def test_an_object_that_goes_away_while_authorization_is_asked_for(bus: PrivateBus) -> None:
    async def go() -> None:
        asked, decided = tasks.Event(), tasks.Event()

        async def ask() -> None:
            asked.set()
            await decided.wait()

        async with serving(bus.address, lambda *_: ask()) as service:
            with RawClient(bus.address) as client:
                answer = tasks.create_task(_error(client, NAME, TOP, IFACE, "Guarded"))
                await asked.wait()
                service.dispatcher.withdraw(TOP)
                decided.set()
                assert (await answer).name == errors.UnknownObject.name
                assert service.thing.calls == []

    loop.run(go())


def test_an_object_that_differs_from_the_xml_is_not_exported(bus: PrivateBus) -> None:
    class Lacking(Thing):
        def properties(self) -> dict[str, Any]:
            return {"Colour": "red", "Size": 3}

    class WrongType(Thing):
        def properties(self) -> dict[str, Any]:
            return {"Colour": 5, "Size": 3, "Mood": ()}

    async def go(service: Service) -> None:
        for wrong in (Lacking(), WrongType(), Thing(interface="no.such")):
            with pytest.raises(ValueError):
                service.dispatcher.export(f"{TOP}/x", wrong)
        for path in (TOP, "/a/", "nothing"):
            with pytest.raises(ValueError, match="cannot be exported"):
                service.dispatcher.export(path, Thing())

    async def serve() -> None:
        async with serving(bus.address) as service:
            await go(service)

    loop.run(serve())


def test_the_real_interface_can_be_dispatched() -> None:
    found = description.parse(description.installed())
    assert {"org.nestd1.Manager", "org.nestd1.Guest"} <= set(found)
    assert found["org.nestd1.Manager"].methods["Launch"] == description.Method("sa{sv}", "o")
    assert found["org.nestd1.Guest"].properties["Owner"] == description.Property("u", "read", "const")
    assert found["org.nestd1.Manager"].signals["GuestExited"] == "oss"
    for each in found.values():
        assert each.xml.startswith("<interface")
        assert each.xml.endswith("</interface>")
        # Descriptors are found by their place: see Dispatcher.
        assert all("h" not in x.gives or x.gives.isalpha() for x in each.methods.values())


@pytest.mark.parametrize(
    "text", ["", "<node>", "<node><interface/></node>", "<node><interface name='a'><method/>"]
)
def test_a_broken_description(text: str) -> None:
    with pytest.raises(errors.Malformed):
        description.parse(text)
