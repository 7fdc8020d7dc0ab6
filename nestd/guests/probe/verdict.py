# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the words of Verify's guest amount to: which level failed, and why, as a sentence for a person."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from nestd.errors import Malformed
from nestd.guests.probe import told
from nestd.guests.probe.told import Exits
from nestd.host.words import harmless
from nestd.model import Extension, Nesting

_PANIC = "Kernel panic - not syncing"
_TAIL = 300
_NESTED_PAGING = {Extension.SVM: "npt", Extension.VMX: "ept"}


class End(StrEnum):
    """How listening came to its end."""

    TOLD = "told"  # everything
    PANIC = "panic"
    GONE = "gone"
    LATE = "late"


class Asked(NamedTuple):
    """What the words are judged by: the argument of -cpu, the seconds that it had, the driver's switch."""

    extension: Extension
    cpu: str
    limit: float
    nested: Nesting


class Verdict(NamedTuple):
    """`level` is the level that failed: `L1` (the guest), `L2` (the guest's guest), or empty: L2 ran.

    `why` is a sentence, empty if L2 ran; then `unmeasured` is one that says why its exits were not measured,
    empty if they were. `flags` are L1's CPU flags, `log` is what its kernel said of KVM.
    """

    level: str
    why: str
    extension: bool = False
    flags: tuple[str, ...] = ()
    kvm_loaded: bool = False
    vm_created: bool = False
    ran: bool = False
    exits: Exits | None = None
    log: str = ""
    unmeasured: str = ""


def complete(text: str) -> bool:
    """Whether the guest has told all that it has to tell."""
    return told.merged(text).get("end") is True


def panic(text: str) -> str:
    """The line in which the guest's kernel panicked; empty if it did not."""
    # No regular expression: from each of these words it would look for the end of the line anew, and a guest
    # can say them many times.
    _, found, rest = text.partition(_PANIC)
    line, whole, _ = rest.partition("\n")
    return _short(found + line) if whole else ""


def of(text: str, end: End, asked: Asked) -> Verdict:
    """Judge what the guest said on its console."""
    known = told.merged(text)
    seen = Verdict(
        "",
        "",
        known.get("extension") is True,
        _texts(known.get("flags")),
        known.get("loaded") is True,
        known.get("created") is True,
        known.get("ran") is True,
        log="\n".join(_texts(known.get("log"))),
    )
    try:
        seen = seen._replace(exits=told.exits(known))
        failed = told.failure(known)
    except Malformed as error:
        level, why = "L1", f"L1, the probe guest, cannot be understood: {error}."
        return seen._replace(unmeasured=why) if seen.ran else seen._replace(level=level, why=why)
    if seen.ran:
        return seen._replace(unmeasured="" if seen.exits else _unmeasured(text, end, failed, asked))
    if end is not End.TOLD:
        level, why = _cut_short(seen, text, end, asked)
    elif not seen.kvm_loaded:
        level, why = "L1", _no_driver(seen, known, asked)
    elif failed:
        level, why = "L2", _no_guest(seen, failed, asked)
    else:
        level, why = "L1", "L1, the probe guest, ended before it had tried to run L2."
    return seen._replace(level=level, why=why)


def _unmeasured(text: str, end: End, failed: told.Failure | None, asked: Asked) -> str:
    if failed:
        return f"L2 ran, but its exits were not measured: {told.words(failed)}."
    how = "L1, the probe guest, ended" if end is End.TOLD else _how(text, end, asked)
    return f"L2 ran, but {how} before its exits were measured."


def _how(text: str, end: End, asked: Asked) -> str:
    return {
        End.PANIC: f"its kernel panicked ({panic(text)})",
        End.GONE: "QEMU ended",
        End.LATE: f"{asked.limit:g} s were over",
    }[end]


def _cut_short(seen: Verdict, text: str, end: End, asked: Asked) -> tuple[str, str]:
    how = _how(text, end, asked)
    if seen.vm_created:
        return "L2", f"L1 created a virtual machine, and {how} when it was to run: L2 does not come back."
    if seen.kvm_loaded:
        return "L1", f"L1 loaded KVM, and {how} when it was to create a virtual machine."
    if seen.flags:
        return "L1", f"L1 booted, and {how} before it had told whether its KVM driver loads."
    last = _short(text.strip().rpartition("\n")[2]) or "nothing at all"
    said = "" if end is End.PANIC else f" The last that it said: {last}"
    return "L1", f"L1, the probe guest, did not boot: {how}.{said}"


def _no_driver(seen: Verdict, known: Mapping[str, object], asked: Asked) -> str:
    extension, cpu = asked.extension, asked.cpu
    if f"-{extension}" in cpu.split(","):
        return f"L1 has no {extension}: cpu-features takes {extension} away. Leave -{extension} out."
    if not seen.extension:
        return f"L1 has no {extension}: with -cpu {cpu} this machine's KVM does not give it. " + (
            "Nesting is off here: turn it on (`nestctl enable`)."
            if asked.nested is Nesting.OFF
            else "Nesting is on here: look at `nestctl diagnose`, or try another cpu."
        )
    said = f"insmod said: {_short(str(known.get('words', ''))) or 'no word'}"
    if known.get("builtin") is True:
        said = "its KVM is built into the kernel and did not start"
    kernel = _short(seen.log.rpartition("\n")[2])
    return f"L1 has {extension}, but no KVM: {said}." + (f" The kernel: {kernel}" if kernel else "")


def _no_guest(seen: Verdict, failed: told.Failure, asked: Asked) -> str:
    why = f"L1 loaded KVM, but L2 does not run: {told.words(failed)}."
    paging = _NESTED_PAGING.get(asked.extension)
    if failed.reason == told.FAIL_ENTRY and paging and paging not in seen.flags:
        why += (
            f" L1 has no nested paging (the CPU flag {paging}): with -cpu {asked.cpu} it does not get it. "
            "Take the cpu host, or a model that has it."
        )
    return why


def _texts(value: object) -> tuple[str, ...]:
    """A list of short texts, as far as it is one."""
    return tuple(_short(one) for one in value if isinstance(one, str)) if isinstance(value, list) else ()


def _short(text: str) -> str:
    """Somebody else's words, fit for a terminal."""
    return harmless(text).replace("\n", "; ")[:_TAIL]
