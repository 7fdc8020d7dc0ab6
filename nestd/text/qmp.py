# SPDX-License-Identifier: LGPL-2.1-or-later
"""The QEMU Machine Protocol: one JSON object a line (QEMU's docs/interop/qmp-spec), and what a vCPU got.

What arrives may come from a process that only claims to be QEMU: everything is checked, nothing is believed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from nestd.errors import Malformed
from nestd.guestmodel import VcpuVerdict
from nestd.text import cpuid

_FLAGS_KEPT = 256


class Greeting(NamedTuple):
    """QEMU's first line."""


class Event(NamedTuple):
    """Something happened, unasked."""

    name: str


class Reply(NamedTuple):
    """The answer to the command of that `id` (None if it carries none)."""

    id: int | None
    value: Any


class Refusal(NamedTuple):
    """A command failed; `words` are QEMU's."""

    id: int | None
    words: str


Message = Greeting | Event | Reply | Refusal


def encode(command: str, number: int, arguments: Mapping[str, object] | None = None) -> bytes:
    """A command as a line."""
    request: dict[str, object] = {"execute": command, "id": number}
    if arguments:
        request["arguments"] = dict(arguments)
    return json.dumps(request).encode() + b"\n"


def decode(line: bytes) -> Message:
    """A line as a message. Malformed: it is no QMP."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Malformed("QMP: a line that is no JSON") from error
    match message:
        case {"QMP": dict()}:
            return Greeting()
        case {"event": str(name)}:
            return Event(name)
        case {"return": value}:
            return Reply(_number(message), value)
        case {"error": {"desc": str(words)}}:
            return Refusal(_number(message), words)
    raise Malformed("QMP: neither a greeting, an event nor an answer")


def vcpu_path(cpus: object) -> str:
    """The first vCPU's QOM path from the answer to `query-cpus-fast`. Malformed."""
    match cpus:
        case [{"qom-path": str(path)}, *_]:
            return path
    raise Malformed("QMP: query-cpus-fast names no vCPU")


def verdict(
    extensions: Mapping[str, object], filtered: object, features: object, host: Iterable[str]
) -> VcpuVerdict:
    """What a vCPU got. Malformed.

    `extensions` are those of its properties `vmx` and `svm` that would mean nesting, `filtered` is its
    `filtered-features` (what its model asks for and KVM cannot give: the model `host` asks for nothing such),
    `features` its `feature-words`, `host` this machine's flags by the kernel's names.
    """
    dropped = set(_named(filtered, "filtered-features"))
    if len(dropped) > _FLAGS_KEPT:
        raise Malformed("QMP: filtered-features is too long")
    missing = dropped | cpuid.withheld(host, _named(features, "feature-words"))
    nesting = any(value is True for value in extensions.values())
    return VcpuVerdict(nesting, tuple(sorted(missing)), tuple(sorted(dropped)))


def _named(words: object, what: str) -> list[str]:
    """The names of the bits that are set in QEMU's CPUID words (its QAPI type X86CPUFeatureWordInfo)."""
    if not isinstance(words, list):
        raise Malformed(f"QMP: {what} is no list")
    found: list[str] = []
    for word in words:
        match word:
            case {"cpuid-input-eax": int(leaf), "cpuid-register": str(register), "features": int(mask)}:
                subleaf = word.get("cpuid-input-ecx", 0)
                if isinstance(subleaf, int) and 0 <= mask < 1 << 32 and register in cpuid.REGISTERS:
                    found += cpuid.names(leaf, subleaf, register, mask)
                    continue
        raise Malformed(f"QMP: {what} holds what is no CPUID word")
    return found


def _number(message: Mapping[str, object]) -> int | None:
    number = message.get("id")
    return number if isinstance(number, int) else None
