# SPDX-License-Identifier: LGPL-2.1-or-later
"""Attacks by what a message is: its header, its signature, its body."""

from __future__ import annotations

import random
from struct import pack

from tests.attacks.ground import AT_ONCE, QUIET, Ground, crafted, option, with_field

_GUEST = "org.nestd1.Guest"


def unknown_header_fields(ground: Ground) -> None:
    """Fields that the specification does not know, of simple and of container types, and of broken ones."""
    fields = [
        b"\x2a\x01s\0\x01\0\0\0x\0",
        b"\xfe\x05a{sv}\0" + bytes(8),
        b"\x0a\x01o\0\x02\0\0\0/a\0",
        b"\x2b\x01v\0" + b"\x01v\0" * 60 + b"\x01y\0\x07",
        b"\x2c\x02ay\0" + bytes(3) + pack("<I", 5000) + bytes(5000),
        b"\x2d\x01g\0\x03(((\0",
        b"\x00\x01s\0\x01\0\0\0x\0",
        b"\x03\x01s\0\x04\0\0\0Ping\0",
    ]
    for _ in range(5):
        for field in fields:
            with ground.client() as client:
                for flags in (0, QUIET):
                    client.send(with_field(crafted(client.serial(), "GetStatus", flags=flags), field))
                ground.drain(client)


def unknown_message_types(ground: Ground) -> None:
    """Every type that there is not, and answers to what nobody asked."""
    for kind in range(256):
        with ground.client() as client:
            data = bytearray(crafted(client.serial(), "GetStatus"))
            data[1] = kind
            reply = b"\x05\x01u\0" + pack("<I", 2)
            for sent in (bytes(data), with_field(bytes(data), reply)):
                client.send(sent)
            ground.drain(client)


def odd_flags(ground: Ground) -> None:
    """Every value of the flags, for a call that is answered and for one that is refused."""
    with ground.client() as client:
        for flags in range(256):
            client.send(crafted(client.serial(), "GetStatus", flags=flags))
            client.send(crafted(client.serial(), "Nothing", flags=flags))
            if flags % 16 == 15:
                ground.drain(client)


def no_interface(ground: Ground) -> None:
    """Calls that name no interface, or one that is not there, or of another object."""
    with ground.client() as client:
        for interface in ("", "no.such.Thing", _GUEST, "org.freedesktop.DBus.Peer", "x." * 120 + "y"):
            for member in ("GetStatus", "Get", "Ping", "Enable", "x" * 255):
                for _ in range(4):
                    client.send(crafted(client.serial(), member, interface=interface))
                ground.drain(client)


def _signatures(ground: Ground, count: int) -> None:
    with ground.client() as client:
        for number in range(count):
            signature = "a(" + bin(number + 2)[2:].replace("0", "y").replace("1", "u") + ")"
            client.send(crafted(client.serial(), "GetStatus", signature, bytes(8)))
            inside = option("scope", signature, b"", 4)
            # The empty array: its length, and the padding before its first struct.
            body = inside + bytes(4) + bytes(-(len(inside) + 4) % 8)
            body = pack("<I", len(body) - 8) + body[4:]
            client.send(crafted(client.serial(), "Enable", "a{sv}", body))
            if number % (AT_ONCE // 2) == 0:
                ground.drain(client)
        ground.drain(client)


def signatures_64(ground: Ground) -> None:
    """64 signatures that nobody has seen before."""
    _signatures(ground, 64)


def signatures_6000(ground: Ground) -> None:
    """6,000 of them: what is kept of each would grow without bound."""
    _signatures(ground, 6000)


def large_bodies(ground: Ground) -> None:
    """Bodies of 30 MB: to what takes no argument, to what is not there, to what takes a dictionary."""
    size = 30_000_000
    array = pack("<I", size) + bytes(size)
    text = pack("<I", size) + b"x" * size + b"\0"
    for member, signature, body in (
        ("GetStatus", "ay", array),
        ("Nothing", "ay", array),
        ("GetGuest", "s", text),
        ("Enable", "a{sv}", option("scope", "s", text, 4)),
    ):
        with ground.client() as client:
            for flags in (0, QUIET):
                client.send(crafted(client.serial(), member, signature, body, flags=flags))
            ground.drain(client)


def many_small_values(ground: Ground) -> None:
    """As many values as fit where nestd still reads the body."""
    empty = pack("<I", 0) + b"\0" + bytes(3)
    for size in (8_000, 60_000):
        strings = empty * (size // 8)
        for body in (
            option("cpu-features", "as", pack("<I", len(strings)) + strings, 4),
            option("disks", "aau", pack("<I", size) + bytes(size), 4),
        ):
            for _ in range(10):
                with ground.client() as client:
                    client.send(crafted(client.serial(), "Enable", "a{sv}", body))
                    ground.drain(client)


def deep_nesting(ground: Ground) -> None:
    """Variants in variants, arrays in arrays, structs in structs: as deep as allowed, and deeper."""
    for depth in (16, 31, 32, 33, 60, 64, 127, 1000, 20_000):
        variants = b"\x01v\0" * depth + b"\x01y\0\x07"
        shapes = [("v", variants), ("aay", bytes(4))]
        if depth < 255:
            shapes.append(("a" * depth + "y", bytes(4)))
        if depth < 127:
            shapes.append(("(" * depth + "y" + ")" * depth, b"\0"))
        for signature, value in shapes:
            for member in ("GetStatus", "Enable"):
                with ground.client() as client:
                    body = option("scope", signature, value, 4 if signature[0] == "a" else 1)
                    client.send(crafted(client.serial(), member, "a{sv}", body))
                    client.send(crafted(client.serial(), member, signature, value))
                    ground.drain(client)


def broken_bodies(ground: Ground) -> None:
    """Bodies that are not what their signature says."""
    bodies = [
        b"\xff\xff\xff\x7f",
        b"\x01\0\0\0",
        b"",
        bytes(5000),
        option("scope", "s", pack("<I", 1000), 4),
        option("scope", "b", pack("<I", 7), 4),
        option("scope", "((((", b""),
        option("scope", "ss", bytes(10)),
        option("scope", "o", pack("<I", 3) + b"//x\0", 4),
        option("scope", "s", pack("<I", 2) + b"\xff\xfe\0", 4),
        option("scope", "s", pack("<I", 2) + b"a\0\0", 4),
    ]
    for body in bodies:
        for member in ("Enable", "GetStatus", "Launch"):
            for _ in range(4):
                with ground.client() as client:
                    client.send(crafted(client.serial(), member, "a{sv}", body))
                    ground.drain(client)


def random_bytes(ground: Ground) -> None:
    """Good messages with single bytes changed, anywhere."""
    chance = random.Random(11)
    call = crafted(9, "Enable", "a{sv}", option("scope", "s", pack("<I", 4) + b"both\0", 4))
    for _ in range(200):
        with ground.client() as client:
            for _ in range(10):
                bad = bytearray(call)
                for _ in range(chance.randrange(1, 4)):
                    bad[chance.randrange(len(bad))] = chance.randrange(256)
                client.send(bytes(bad))
