# SPDX-License-Identifier: LGPL-2.1-or-later
"""What nestctl prints of events: pure, an event in, a line out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from . import guestrender
from .events import Event
from .style import PLAIN, Style
from .table import Values, several, text, visible

_MODULE = {"add": "was loaded", "remove": "was unloaded"}


def line(event: Event, style: Style = PLAIN) -> str:
    """The event in words; empty where there is nothing that a person would want to know."""
    said = _WORDS.get(event.name)
    return said(event, style) if said else ""


def _start(event: Event, style: Style) -> str:
    status = event.values["status"]
    said = [f"nesting is {_nesting(status.get('nested'), style)}"]
    said.append(f"at the next boot {_nesting(status.get('nested-at-boot'), style)}")
    if status.get("driver"):
        said.append(f"{text(status, 'driver')} {text(status, 'driver-state')}")
    for key in ("reboot-required", "pending-change", "obstacle"):
        if status.get(key):
            said.append(_PROPERTIES[key](status[key], style))
    for kind in ("guest", "lab"):
        names = [f"{text(one, 'name')} ({text(one, 'state')})" for one in event.values[f"{kind}s"]]
        said.append(f"{kind}s: {', '.join(names)}" if names else f"no {kind}s")
    said += [_job(job) for job in event.values["jobs"]]
    return "; ".join(said)


def _property(event: Event, style: Style) -> str:
    name, before, after = (event.values[key] for key in ("property", "from", "to"))
    if name in _PROPERTIES:
        return _PROPERTIES[name](after, style)
    label = {"nested": "nesting", "nested-at-boot": "nesting at the next boot"}.get(name, name)
    if name in ("nested", "nested-at-boot"):
        return f"{label}: {_nesting(before, style)} → {_nesting(after, style)}"
    return f"{visible(label).replace('-', ' ')}: {_some(before)} → {_some(after)}"


def _reboot(value: object, style: Style) -> str:
    return style.warn("a reboot is required") if value is True else "no reboot is required any more"


def _pending(value: object, style: Style) -> str:
    if not value:
        return "no change waits any more"
    return style.warn(f"turning nesting {visible(value)} waits until nobody uses KVM")


def _obstacle(value: object, style: Style) -> str:
    return style.bad(f"in the way: {visible(value)}") if value else "nothing is in the way any more"


def _guest_changed(event: Event, style: Style) -> str:
    changed, name = event.values["changed"], text(event.values, "name")
    said = []
    if "state" in changed or changed.get("stopping"):
        state = guestrender.state(event.known)
        said.append(f"guest {name} is {style.bad(state) if changed.get('state') == 'failed' else state}")
    if words := several(changed.get("last-words")):
        said.append(f"QEMU's last words on {name}: {visible(words[-1])}")
    return "; ".join(said)


def _added(event: Event, _: Style) -> str:
    kind = event.name.partition("-")[0]
    if kind == "guest":
        nesting = "with" if event.known.get("nesting") is True else "without"
        return f"guest {_name(event)} is there: {guestrender.state(event.known)}, {nesting} nesting"
    return f"lab {_name(event)} is there: {text(event.known, 'state')}, {text(event.known, 'subnet')}"


def _lab_changed(event: Event, _: Style) -> str:
    changed, said = event.values["changed"], []
    if "state" in changed:
        said.append(text(changed, "state"))
    if isinstance(nodes := changed.get("nodes"), list):
        running = sum(bool(node["guest"]) for node in nodes)
        said.append(f"{running} of {len(nodes)} run")
    return f"lab {_name(event)}: {', '.join(said)}" if said else ""


def _removed(event: Event, style: Style) -> str:
    kind = event.name.partition("-")[0]
    return (
        style.dim(f"guest {_name(event)} is forgotten")
        if kind == "guest"
        else f"lab {_name(event)} is removed"
    )


def _drift(event: Event, style: Style) -> str:
    expected, actual, cause = (text(event.values, key) for key in ("expected", "actual", "cause"))
    return style.bad(f"nesting is {actual}, and nestd was told {expected}: {cause}")


def _job(values: Values) -> str:
    part = values.get("progress")
    share = f" {part:.0%}" if isinstance(part, float) else ""
    return f"{text(values, 'operation')}{share}: {text(values, 'step')}"


def _job_ended(event: Event, style: Style) -> str:
    operation = text(event.values, "operation")
    if event.values["success"]:
        return f"{operation}: {style.good('done')}"
    return f"{operation}: {style.bad('failed')}: {text(event.values, 'message')}"


def _name(event: Event) -> str:
    return text(event.values, "name")


def _some(value: object) -> str:
    return "nothing" if value in ("", None) else visible(value)


def _nesting(value: object, style: Style) -> str:
    paint = {"on": style.good, "off": style.warn, "unsupported": style.bad}.get(str(value), style.plain)
    return paint(_some(value))


_PROPERTIES: Mapping[str, Callable[[Any, Style], str]] = {
    "reboot-required": _reboot,
    "pending-change": _pending,
    "obstacle": _obstacle,
}
_WORDS: Mapping[str, Callable[[Event, Style], str]] = {
    "start": _start,
    "property-changed": _property,
    "module": lambda event, _: (
        f"module {text(event.values, 'module')} "
        f"{_MODULE.get(event.values['action'], text(event.values, 'action'))}"
    ),
    "drift": _drift,
    "guest-added": _added,
    "guest-changed": _guest_changed,  # its end is told there; guest-exited says no more
    "guest-removed": _removed,
    "lab-added": _added,
    "lab-changed": _lab_changed,
    "lab-removed": _removed,
    "job-started": lambda event, _: _job(event.values),
    "job-progress": lambda event, _: _job(event.values),
    "job-ended": _job_ended,
    "nestd-gone": lambda _, style: style.warn("nestd went away"),
    "nestd-back": lambda event, _: f"nestd is back, version {text(event.values, 'version')}",
}
