# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where a bus listens (D-Bus specification, "Server Addresses" and "Well-known Message Bus Instances")."""

from __future__ import annotations

from collections.abc import Mapping

from nestd.errors import Malformed

_SYSTEM = "unix:path=/run/dbus/system_bus_socket"
_SUN_PATH = 107  # bytes of sockaddr_un.sun_path, less the NUL (unix(7))


def of(bus: str, environment: Mapping[str, str]) -> str:
    """The address of the bus that is called `system`, `session`, or by its address itself.

    Malformed: the session bus is asked for and the environment does not say where one is.
    """
    if bus == "system":
        return environment.get("DBUS_SYSTEM_BUS_ADDRESS") or _SYSTEM
    if bus != "session":
        return bus
    if address := environment.get("DBUS_SESSION_BUS_ADDRESS"):
        return address
    if folder := environment.get("XDG_RUNTIME_DIR"):
        return f"unix:path={_escape(folder)}/bus"
    raise Malformed("no session bus: neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR is set")


def sockets(address: str, environment: Mapping[str, str]) -> tuple[str, ...]:
    """What to connect a unix stream socket to, in the order in which to try.

    `address` is a list separated by `;`; entries of transports other than `unix:` are passed over. A name
    in the abstract namespace begins with NUL. Malformed: an entry is broken, or none is left.
    """
    found = []
    for entry in filter(None, address.split(";")):
        transport, separator, rest = entry.partition(":")
        if not separator:
            raise Malformed(f"the bus address {entry!r} has no transport; write unix:path=...")
        if transport == "unix":
            found.append(_unix(entry, rest, environment))
    if not found:
        raise Malformed(f"the bus address {address!r} has no unix: entry, and no other can be used")
    return tuple(found)


def _unix(entry: str, rest: str, environment: Mapping[str, str]) -> str:
    options = dict[str, str]()
    for pair in filter(None, rest.split(",")):
        key, separator, value = pair.partition("=")
        if not separator or key in options:
            raise Malformed(f"the bus address {entry!r} is not a list of key=value")
        options[key] = _unescape(value)
    if path := options.get("path"):
        target = path
    elif name := options.get("abstract"):
        target = "\0" + name
    elif options.get("runtime") == "yes" and environment.get("XDG_RUNTIME_DIR"):
        target = environment["XDG_RUNTIME_DIR"] + "/bus"
    else:
        raise Malformed(f"the bus address {entry!r} has no path= and no abstract=")
    if "\0" in target[1:] or len(target.encode("utf-8", "surrogateescape")) > _SUN_PATH:
        raise Malformed(f"the bus address {entry!r} is too long for a socket, or has a NUL in it")
    return target


def _escape(text: str) -> str:
    raw = text.encode("utf-8", "surrogateescape")
    return "".join(
        chr(x) if chr(x).isascii() and (chr(x).isalnum() or x in b"-_/.*") else f"%{x:02x}" for x in raw
    )


def _unescape(text: str) -> str:
    first, *rest = text.encode("utf-8", "surrogateescape").split(b"%")
    try:
        parts = [first, *(bytes.fromhex(x[:2].decode()) + x[2:] for x in rest)]
    except ValueError:
        parts = []
    if not parts or any(len(x) < 2 for x in rest):
        raise Malformed(f"the bus address has a broken %-escape in {text!r}")
    return b"".join(parts).decode("utf-8", "surrogateescape")
