# SPDX-License-Identifier: LGPL-2.1-or-later
"""The standard interfaces over a tree of exported objects (D-Bus specification, "Standard Interfaces")."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nestd import errors
from nestd.bus import interface as description
from nestd.bus.exported import Call, Exported
from nestd.bus.interface import Interface
from nestd.wire.body import is_path, variant
from nestd.wire.library import Variant

PEER = "org.freedesktop.DBus.Peer"
INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"
PROPERTIES = "org.freedesktop.DBus.Properties"
OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"

_DOCTYPE = """<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">
"""
_XML = """<node>
  <interface name="org.freedesktop.DBus.Peer">
    <method name="Ping"/>
    <method name="GetMachineId"><arg name="machine_uuid" type="s" direction="out"/></method>
  </interface>
  <interface name="org.freedesktop.DBus.Introspectable">
    <method name="Introspect"><arg name="xml_data" type="s" direction="out"/></method>
  </interface>
  <interface name="org.freedesktop.DBus.Properties">
    <method name="Get">
      <arg name="interface_name" type="s" direction="in"/>
      <arg name="property_name" type="s" direction="in"/>
      <arg name="value" type="v" direction="out"/>
    </method>
    <method name="GetAll">
      <arg name="interface_name" type="s" direction="in"/>
      <arg name="props" type="a{sv}" direction="out"/>
    </method>
    <method name="Set">
      <arg name="interface_name" type="s" direction="in"/>
      <arg name="property_name" type="s" direction="in"/>
      <arg name="value" type="v" direction="in"/>
    </method>
    <signal name="PropertiesChanged">
      <arg name="interface_name" type="s"/>
      <arg name="changed_properties" type="a{sv}"/>
      <arg name="invalidated_properties" type="as"/>
    </signal>
  </interface>
  <interface name="org.freedesktop.DBus.ObjectManager">
    <method name="GetManagedObjects">
      <arg name="object_paths_interfaces_and_properties" type="a{oa{sa{sv}}}" direction="out"/>
    </method>
    <signal name="InterfacesAdded">
      <arg name="object_path" type="o"/>
      <arg name="interfaces_and_properties" type="a{sa{sv}}"/>
    </signal>
    <signal name="InterfacesRemoved">
      <arg name="object_path" type="o"/>
      <arg name="interfaces" type="as"/>
    </signal>
  </interface>
</node>"""


class Standard:
    """The exported objects, and what the standard interfaces say of them. All of it is reading."""

    def __init__(self, interfaces: Mapping[str, Interface], top: str, machine_id: Callable[[], str]) -> None:
        self.objects: dict[str, Exported] = {}
        self.interfaces = interfaces
        self.top = top
        self.own = description.parse(_XML)
        self._machine_id = machine_id

    def at(self, path: str) -> list[Interface]:
        """All interfaces at a path; empty where there is nothing, not even something below it."""
        found = [self.own[PEER], self.own[INTROSPECTABLE]]
        if path == self.top:
            found.append(self.own[OBJECT_MANAGER])
        if path in self.objects:
            return [*found, self.own[PROPERTIES], self.interfaces[self.objects[path].interface]]
        return found if path == self.top or self._children(path) else []

    def add(self, path: str, exported: Exported) -> None:
        """Check an object against its interface, and take it in. ValueError: they do not agree."""
        interface = self.interfaces.get(exported.interface)
        if interface is None or not is_path(path) or path in self.objects:
            raise ValueError(f"{exported.interface} cannot be exported at {path!r}")
        for kind, wanted, given in (
            ("methods", interface.methods, exported.methods),
            ("properties", interface.properties, exported.properties()),
        ):
            if wanted.keys() != given.keys():
                odd = sorted(wanted.keys() ^ given.keys())
                raise ValueError(f"{exported.interface} and its description differ in {kind}: {odd}")
        self.values(exported)
        self.objects[path] = exported

    def values(self, exported: Exported) -> dict[str, Variant]:
        """All properties of an object."""
        described = self.interfaces[exported.interface].properties
        return {name: variant(described[name].signature, x) for name, x in exported.properties().items()}

    def managed(self, path: str) -> dict[str, dict[str, Variant]]:
        """The interfaces of an object, as ObjectManager has them."""
        exported = self.objects[path]
        return {exported.interface: self.values(exported)}

    def answer(self, call: Call) -> Sequence[Any]:
        """The out-arguments of a method of the standard interfaces. Raises BusError."""
        match call.member, *call.arguments:
            case "Ping", *_:
                return []
            case "GetMachineId", *_:
                return [self._machine_id()]
            case "Introspect", *_:
                return [self._introspect(call.path)]
            case "GetManagedObjects", *_:
                below = [path for path in self.objects if path.startswith(f"{self.top}/")]
                return [{path: self.managed(path) for path in below}]
            case "GetAll", interface:
                exported = self._with_properties(call.path, interface)
                return [{} if exported is None else self.values(exported)]
            case member, interface, name, *_:
                return [self._get(call.path, interface, name, member)]
        raise errors.UnknownMethod(f"{call.interface} has no method {call.member}.")

    def basis(self, call: Call) -> object:
        """What `answer` is made of: while this is equal, so is the answer. None: nobody can say."""
        match call.member:
            case "Get" | "GetAll":
                exported = self.objects.get(call.path)
                return None if exported is None else (exported, exported.state)
            case "GetManagedObjects":
                return [(path, exported, exported.state) for path, exported in self.objects.items()]
            case "Introspect":
                return list(self.objects)
        return None

    def _get(self, path: str, interface: str, name: str, member: str) -> Variant:
        exported = self._with_properties(path, interface)
        values = {} if exported is None else exported.properties()
        if exported is None or name not in values:
            raise errors.UnknownProperty(
                f"{interface or path} has no property {name[:80]!r}; GetAll lists them."
            )
        if member == "Set":
            raise errors.PropertyReadOnly(f"{name} can only be read: it changes when its cause does.")
        return variant(self.interfaces[exported.interface].properties[name].signature, values[name])

    def _with_properties(self, path: str, interface: str) -> Exported | None:
        """The object whose properties are meant; None for a standard interface, which has none."""
        exported = self.objects[path]
        if interface in ("", exported.interface):
            return exported
        if any(interface == each.name for each in self.at(path)):
            return None
        raise errors.UnknownInterface(f"{path} has no interface {interface[:80]!r}.")

    def _children(self, path: str) -> list[str]:
        prefix = path.rstrip("/") + "/"
        below = {*self.objects, self.top}
        return sorted(
            {x[len(prefix) :].partition("/")[0] for x in below if x.startswith(prefix) and x != path}
        )

    def _introspect(self, path: str) -> str:
        parts = [f"  {interface.xml}\n" for interface in self.at(path)]
        parts += [f'  <node name="{child}"/>\n' for child in self._children(path)]
        return f"{_DOCTYPE}<node>\n{''.join(parts)}</node>\n"
