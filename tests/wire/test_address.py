# SPDX-License-Identifier: LGPL-2.1-or-later
"""Bus addresses, and the handshake."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nestd.errors import Malformed
from nestd.wire import address, sasl

_ENVIRONMENT = {"XDG_RUNTIME_DIR": "/run/user/7 é"}


@pytest.mark.parametrize(
    ("text", "sockets"),
    [
        ("unix:path=/run/bus", ("/run/bus",)),
        ("unix:path=/a,guid=00ff", ("/a",)),
        ("unix:abstract=/tmp/x", ("\0/tmp/x",)),
        ("unix:path=/a%20b%2c", ("/a b,",)),
        ("tcp:host=h,port=1;unix:path=/b;unix:abstract=c", ("/b", "\0c")),
        ("unix:runtime=yes", ("/run/user/7 é/bus",)),
        (";unix:path=/a;", ("/a",)),
    ],
)
def test_addresses(text: str, sockets: tuple[str, ...]) -> None:
    assert address.sockets(text, _ENVIRONMENT) == sockets


@pytest.mark.parametrize(
    "text",
    ["", "/run/bus", "tcp:host=h", "unix:", "unix:guid=1", "unix:path", "unix:path=/a,path=/b",
     "unix:path=/a%2", "unix:path=/a%zz", "unix:path=/a%00b", "unix:path=/" + "a" * 200],
)  # fmt: skip
def test_broken_addresses(text: str) -> None:
    with pytest.raises(Malformed):
        address.sockets(text, _ENVIRONMENT)


def test_the_buses_by_name() -> None:
    assert address.of("system", {}) == "unix:path=/run/dbus/system_bus_socket"
    assert address.of("system", {"DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/x"}) == "unix:path=/x"
    assert address.of("session", {"DBUS_SESSION_BUS_ADDRESS": "unix:path=/y"}) == "unix:path=/y"
    assert address.of("unix:path=/z", {}) == "unix:path=/z"
    session = address.of("session", _ENVIRONMENT)
    assert address.sockets(session, {}) == ("/run/user/7 é/bus",)
    with pytest.raises(Malformed, match="XDG_RUNTIME_DIR"):
        address.of("session", {})


def test_the_handshake() -> None:
    assert sasl.hello(1000) == b"\0AUTH EXTERNAL 31303030\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n"
    whole = b"OK 0123\r\nAGREE_UNIX_FD\r\nl\x01"
    for end in range(len(whole) - 2):
        assert sasl.answer(whole[:end]) is None
    assert sasl.answer(whole) == ("0123", True, b"l\x01")
    assert sasl.answer(b"OK 0123\r\nERROR not here\r\n") == ("0123", False, b"")


@pytest.mark.parametrize(
    "data",
    [
        b"REJECTED EXTERNAL\r\n",
        b"HTTP/1.1 400\r\n\r\n",
        b"OK 1\r\nWHAT\r\n",
        b"O" * 5000,
        b"OK " + b"1" * 5000,
    ],
)
def test_a_handshake_that_fails(data: bytes) -> None:
    with pytest.raises(Malformed):
        sasl.answer(data)


def test_the_wire_loads_neither_asyncio_nor_the_whole_library() -> None:
    code = (
        "import sys; from nestd.wire import address, message, sasl, library; "
        "heavy = {'asyncio', 'dataclasses', 'inspect', 'urllib', 'dbus_next.aio'}; "
        "print(*heavy & set(sys.modules)); "
        "import dbus_next; assert dbus_next.Variant is library.Variant; assert dbus_next.aio.MessageBus"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
