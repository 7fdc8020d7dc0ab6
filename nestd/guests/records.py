# SPDX-License-Identifier: LGPL-2.1-or-later
"""What nestd knows of its guests, kept for the next nestd: JSON, for root alone."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, get_type_hints

from nestd.errors import Malformed
from nestd.guestmodel import GuestRecord, GuestState, VcpuVerdict
from nestd.guests import places
from nestd.host import files
from nestd.host.root import Root
from nestd.host.units import invocation

if TYPE_CHECKING:
    from nestd.text.qemu import Shape


def running(
    name: str, owner: int, shape: Shape, known: Mapping[str, Any], verdict: VcpuVerdict
) -> GuestRecord:
    """The record of a guest that runs; `known` are its unit's properties."""
    return GuestRecord(
        name=name,
        state=GuestState.RUNNING,
        owner=owner,
        unit=places.unit(name),
        pid=int(known.get("MainPID", 0)),
        cpu=shape.cpu,
        nesting=verdict.nesting,
        missing_flags=verdict.missing,
        memory=shape.memory,
        vcpus=shape.vcpus,
        started=int(known.get("ExecMainStartTimestamp", 0)),
        console=places.console(name),
        vnc=places.vnc(name) if shape.vnc else "",
        lab=shape.lab,
        invocation=invocation(known),
    )


def stopping(record: GuestRecord, what: str, left: float) -> GuestRecord:
    """The record of a guest that is being stopped: by `what`, for `left` seconds more."""
    deadline = int((time.time() + max(left, 0.0)) * 1e6)
    return record._replace(state=GuestState.STOPPING, stopping=what, stop_deadline=deadline)


def ended(record: GuestRecord, known: Mapping[str, Any]) -> GuestRecord:
    """The record of a guest that has ended; `known` are its unit's last properties, if there are any."""
    result = str(known.get("Result", ""))
    return record._replace(
        state=GuestState.EXITED if result in ("success", "") else GuestState.FAILED,
        pid=0,
        exit_status=int(known.get("ExecMainStatus", 0)),
        stopping="",
        stop_deadline=0,
        ended=int(known.get("ExecMainExitTimestamp", 0)) or time.time_ns() // 1000,
        result=result,
        invocation=invocation(known) or record.invocation,
    )


def save(root: Root, record: GuestRecord) -> None:
    """Keep a record. OSError."""
    import json  # noqa: PLC0415 -- only where there are guests

    files.make_folder(root, places.REGISTRY, 0o700)
    files.replace(root, places.record(record.name), json.dumps(record._asdict()), 0o600)


def load(root: Root, name: str) -> GuestRecord | None:
    """The record of that name; None if there is none. Malformed, OSError."""
    text = files.read(root, places.record(name))
    return None if text is None else parse(text)


def names(root: Root) -> tuple[str, ...]:
    """The guests that have a record. OSError."""
    return tuple(x.removesuffix(".json") for x in files.names(root, places.REGISTRY) if x.endswith(".json"))


def remove(root: Root, name: str) -> None:
    """Forget a record; none is fine. OSError."""
    files.remove(root, places.record(name))


def parse(text: str) -> GuestRecord:
    """A record from its text. Malformed: it is half, or another version's."""
    import json  # noqa: PLC0415 -- as above

    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Malformed("a guest's record that is no JSON") from error
    kinds = get_type_hints(GuestRecord)
    # What an older nestd did not know of had its default then.
    if not isinstance(value, dict) or {*value, *GuestRecord._field_defaults} != set(kinds):
        raise Malformed("a guest's record with other fields than this version's")
    return GuestRecord(**{name: _field(name, kinds[name], item) for name, item in value.items()})


def _field(name: str, kind: Any, value: Any) -> Any:
    match value:
        case str() | int() if type(value) is kind:  # not isinstance: a bool is no number here
            return value
        case str() if kind is GuestState and value in set(GuestState):
            return GuestState(value)
        case list() if kind == tuple[str, ...] and all(isinstance(item, str) for item in value):
            return tuple(value)
    raise Malformed(f"a guest's record whose {name} is {value!r}")
