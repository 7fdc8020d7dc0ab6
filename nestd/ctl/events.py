# SPDX-License-Identifier: LGPL-2.1-or-later
"""What happens: nestd's signals as events, and what is known meanwhile. Pure.

The names of the events and their keys are stable (nestctl(1), data/nestctl.schema.json); a signal that is not
known, or has another shape, is a newer nestd's, and no event.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from nestd.errors import Malformed

from .labs import with_nodes
from .owned import kebab

_MANAGER = "org.nestd1.Manager"
_KINDS = {"org.nestd1.Guest": "guest", "org.nestd1.Lab": "lab", "org.nestd1.Job": "job"}
_JOB = ("operation", "step", "progress")

Objects = Mapping[str, Mapping[str, Mapping[str, Any]]]


class Event(NamedTuple):
    """Something that happened: its name, the JSON that belongs to it, and what is known of whom it befell."""

    name: str
    values: dict[str, Any]
    known: Mapping[str, Any] = MappingProxyType({})


class _Thing(NamedTuple):
    kind: str
    values: dict[str, Any]


class World:
    """The machine, its guests, labs and jobs, as nestd has told them so far."""

    def __init__(self, status: Mapping[str, Any], objects: Objects) -> None:
        """From what GetStatus and GetManagedObjects give."""
        self._status = dict(status)
        self._things = _things(objects)

    def start(self) -> Event:
        """How it is now."""
        found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in _KINDS.values()}
        for path, thing in self._things.items():
            found[thing.kind].append(_job(path, thing.values) if thing.kind == "job" else thing.values)
        for kind in ("guest", "lab"):
            found[kind].sort(key=lambda values: str(values.get("name")))
        return Event("start", {"status": self._status, **{f"{kind}s": all_ for kind, all_ in found.items()}})

    def know(self, status: Mapping[str, Any]) -> None:
        """What GetStatus gives, which is younger than what was heard so far."""
        self._status = dict(status)

    def hear(self, path: str, member: str, said: list[Any]) -> list[Event]:
        """What a signal of nestd's says, its variants unwrapped."""
        events: list[Event] = []
        match member, said:
            case "PropertiesChanged", [str(interface), dict(changed), *_]:
                events = self._changed(path, interface, changed)
            case "InterfacesAdded", [str(added), dict(interfaces)]:
                for at, thing in _things({added: interfaces}).items():
                    events += self._came(at, thing)
            case "InterfacesRemoved", [str(removed), list(interfaces)] if _KINDS.keys() & set(interfaces):
                events = self._went(removed)
            case "Completed", [bool(success), str(message)] if path in self._things:
                job = _job(path, self._things[path].values)
                whose = {key: job[key] for key in ("job", "operation")}
                events = [Event("job-ended", {**whose, "success": success, "message": message})]
            case "ModuleEvent", [str(action), str(module)]:
                events = [Event("module", {"action": action, "module": module})]
            case "Drift", [str(expected), str(actual), str(cause)]:
                events = [Event("drift", {"expected": expected, "actual": actual, "cause": cause})]
            case "GuestExited", [str(), str(name), str(result)]:
                events = [Event("guest-exited", {"name": name, "result": result})]
        return events

    def again(self, now: World) -> list[Event]:
        """What is different, now that nestd is back."""
        # A new nestd counts its jobs from 1: none of them is one that was known.
        gone = [
            path for path, thing in self._things.items() if path not in now._things or thing.kind == "job"
        ]
        events = [event for path in gone for event in self._went(path)]
        events += self._told(now._status)
        for path, thing in now._things.items():
            events += self._came(path, thing)
        return events

    def _told(self, status: Mapping[str, Any]) -> list[Event]:
        events = []
        for key, value in status.items():
            if key in _PROPERTIES and self._status.get(key) != value:
                values = {"property": key, "from": self._status.get(key), "to": value}
                events.append(Event("property-changed", values))
        self._status |= status
        return events

    def _changed(self, path: str, interface: str, changed: Mapping[str, Any]) -> list[Event]:
        if interface == _MANAGER:
            return self._told(kebab(changed))
        thing = self._things.get(path)
        if thing is None or _KINDS.get(interface) != thing.kind:
            return []
        return self._moved(path, thing, _values(thing.kind, changed))

    def _moved(self, path: str, thing: _Thing, changed: Mapping[str, Any]) -> list[Event]:
        new = {key: value for key, value in changed.items() if thing.values.get(key) != value}
        thing.values.update(new)
        if not new:
            return []
        if thing.kind == "job":
            return [Event("job-progress", _job(path, thing.values))]
        values = {"name": thing.values.get("name", ""), "changed": new}
        return [Event(f"{thing.kind}-changed", values, thing.values)]

    def _came(self, path: str, thing: _Thing) -> list[Event]:
        known = self._things.get(path)
        if known is not None and known.kind == thing.kind and _born(known) == _born(thing):
            return self._moved(path, known, thing.values)
        self._things[path] = thing
        if thing.kind == "job":
            return [Event("job-started", _job(path, thing.values))]
        values = {"name": thing.values.get("name", ""), thing.kind: dict(thing.values)}
        return [Event(f"{thing.kind}-added", values, thing.values)]

    def _went(self, path: str) -> list[Event]:
        thing = self._things.pop(path, None)
        if thing is None or thing.kind == "job":  # whose end was told before
            return []
        return [Event(f"{thing.kind}-removed", {"name": thing.values.get("name", "")})]


_PROPERTIES = (
    *("version", "extension", "driver", "driver-state", "nested", "nested-at-boot", "policy"),
    *("reboot-required", "pending-change", "obstacle", "virtualization"),
)


def _things(objects: Objects) -> dict[str, _Thing]:
    """The objects that are known of, by their paths."""
    return {
        path: _Thing(_KINDS[interface], _values(_KINDS[interface], properties))
        for path, interfaces in objects.items()
        for interface, properties in interfaces.items()
        if interface in _KINDS and isinstance(properties, dict)
    }


def _values(kind: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    """As the other commands' JSON has them."""
    values = kebab(properties)
    if kind == "lab" and "nodes" in values:
        try:
            return with_nodes(values)
        except Malformed:
            del values["nodes"]
    return values


def _born(thing: _Thing) -> object:
    """What tells it from another of the same name."""
    return thing.values.get("started" if thing.kind == "guest" else "created")


def _job(path: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """A job's JSON: its number, and where it is."""
    number = path.rpartition("/")[2]
    return {"job": int(number) if number.isdecimal() else number, **{key: values.get(key) for key in _JOB}}
