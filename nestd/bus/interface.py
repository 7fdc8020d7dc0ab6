# SPDX-License-Identifier: LGPL-2.1-or-later
"""The interfaces that the XML describes: their members, and their own text to be handed out verbatim."""

import os
from collections.abc import Mapping
from pyexpat import ExpatError, ParserCreate
from types import MappingProxyType
from typing import NamedTuple

from nestd.errors import Malformed

_EMITS = "org.freedesktop.DBus.Property.EmitsChangedSignal"


class Method(NamedTuple):
    """Signatures of what goes in and of what comes out."""

    takes: str
    gives: str


class Property(NamedTuple):
    """`access` is read, write or readwrite; `emits` is true, invalidates, const or false."""

    signature: str
    access: str
    emits: str


class Interface(NamedTuple):
    """One interface; `xml` is its element exactly as it was written."""

    name: str
    xml: str
    methods: Mapping[str, Method]
    properties: Mapping[str, Property]
    signals: Mapping[str, str]


class _Open:
    """The interface, and in it the member, that the parser is inside of."""

    def __init__(self, name: str, start: int) -> None:
        self.name = name
        self.start = start
        self.annotations: dict[str, str] = {}
        self.methods: dict[str, Method] = {}
        self.properties: dict[str, Property] = {}
        self.signals: dict[str, str] = {}
        self.member: tuple[str, dict[str, str]] | None = None
        self.takes = self.gives = ""


def installed() -> str:
    """The text of org.nestd1.xml, which is packaged beside this file, or in the source tree in data/."""
    folder = os.path.dirname(os.path.abspath(__file__))
    path = os.path.join(folder, "org.nestd1.xml")
    if not os.path.exists(path):
        path = os.path.join(folder, "..", "..", "data", "org.nestd1.xml")
    with open(path, encoding="utf-8") as file:
        return file.read()


def parse(text: str) -> dict[str, Interface]:
    """The interfaces in an introspection document, by name. Raises Malformed."""
    raw = text.encode()
    parser = ParserCreate()
    found: dict[str, Interface] = {}
    opened: list[_Open] = []

    def start(tag: str, attributes: dict[str, str]) -> None:
        if tag == "interface":
            opened.append(_Open(attributes["name"], parser.CurrentByteIndex))
        elif opened:
            _enter(opened[-1], tag, attributes)

    def end(tag: str) -> None:
        if tag == "interface":
            done = opened.pop()
            # The parser stands at the "<" of the end tag.
            xml = raw[done.start : raw.index(b">", parser.CurrentByteIndex) + 1].decode()
            found[done.name] = Interface(
                name=done.name,
                xml=xml,
                methods=MappingProxyType(done.methods),
                properties=MappingProxyType(done.properties),
                signals=MappingProxyType(done.signals),
            )
        elif opened and opened[-1].member is not None and tag in ("method", "property", "signal"):
            _leave(opened[-1], tag)

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    try:
        parser.Parse(raw, True)
    except (ExpatError, KeyError) as error:
        raise Malformed(f"the interface description is broken: {error!r}") from error
    return found


def _enter(interface: _Open, tag: str, attributes: dict[str, str]) -> None:
    if tag in ("method", "property", "signal"):
        interface.member = (attributes["name"], attributes)
        interface.takes = interface.gives = ""
        interface.annotations.clear()
    elif tag == "arg" and attributes.get("direction", "in") == "in":
        interface.takes += attributes["type"]
    elif tag == "arg":
        interface.gives += attributes["type"]
    elif tag == "annotation":
        interface.annotations[attributes["name"]] = attributes["value"]


def _leave(interface: _Open, tag: str) -> None:
    if interface.member is None:
        return
    name, attributes = interface.member
    interface.member = None
    if tag == "method":
        interface.methods[name] = Method(interface.takes, interface.gives)
    elif tag == "property":
        emits = interface.annotations.get(_EMITS, "true")
        interface.properties[name] = Property(attributes["type"], attributes["access"], emits)
    else:
        interface.signals[name] = interface.takes + interface.gives
