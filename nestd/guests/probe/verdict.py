# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the words of Verify's guest amount to: which level failed, and why, as a sentence for a person."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from nestd.errors import Malformed
from nestd.guests.probe import told
from nestd.guests.probe.told import Exits
from nestd.host.words import harmless
from nestd.model import Extension

_PANIC = "Kernel panic - not syncing"
_TAIL = 300
_NESTED_PAGING = {Extension.SVM: "npt", Extension.VMX: "ept"}


class End(StrEnum):
    """How listening came to its end."""

    TOLD = "told"  # everything
    PANIC = "panic"
    GONE = "gone"
    LATE = "late"


class Verdict(NamedTuple):
    """`level` is the level that failed: `L1` (the guest), `L2` (the guest's guest), or empty: all works.

    `why` is a sentence, empty if all works. `flags` are L1's CPU flags, `log` is what its kernel said of KVM.
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


def of(text: str, end: End, extension: Extension, cpu: str, limit: float) -> Verdict:
    """Judge what the guest said on its console. `cpu` is the argument of -cpu, `limit` seconds."""
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
        return seen._replace(level="L1", why=f"L1, the probe guest, cannot be understood: {error}.")
    if end is not End.TOLD:
        level, why = _cut_short(seen, text, end, limit)
    elif not seen.kvm_loaded:
        level, why = "L1", _no_driver(seen, str(known.get("words", "")), extension, cpu)
    elif failed:
        level, why = "L2", _no_guest(seen, failed, extension, cpu)
    elif seen.exits is None:
        level, why = "L1", "L1, the probe guest, ended before it had measured."
    else:
        level, why = "", ""
    return seen._replace(level=level, why=why)


def _cut_short(seen: Verdict, text: str, end: End, limit: float) -> tuple[str, str]:
    how = {
        End.PANIC: f"its kernel panicked ({panic(text)})",
        End.GONE: "QEMU ended",
        End.LATE: f"{limit:g} s were over",
    }[end]
    if seen.ran:
        return "L2", f"L2 ran, but {how} before its exits were measured."
    if seen.vm_created:
        return "L2", f"L1 created a virtual machine, and {how} when it was to run: L2 does not come back."
    if seen.kvm_loaded:
        return "L1", f"L1 loaded KVM, and {how} when it was to create a virtual machine."
    if seen.flags:
        return "L1", f"L1 booted, and {how} before it had told whether its KVM driver loads."
    last = _short(text.strip().rpartition("\n")[2]) or "nothing at all"
    said = "" if end is End.PANIC else f" The last that it said: {last}"
    return "L1", f"L1, the probe guest, did not boot: {how}.{said}"


def _no_driver(seen: Verdict, words: str, extension: Extension, cpu: str) -> str:
    if not seen.extension:
        return (
            f"L1 has no {extension}: with -cpu {cpu} this machine's KVM does not give it. `nestctl status` "
            "tells whether nesting is on."
        )
    said = _short(words) or "no word"
    kernel = _short(seen.log.rpartition("\n")[2])
    return f"L1 has {extension}, but no KVM: insmod said: {said}." + (
        f" The kernel: {kernel}" if kernel else ""
    )


def _no_guest(seen: Verdict, failed: told.Failure, extension: Extension, cpu: str) -> str:
    why = f"L1 loaded KVM, but L2 does not run: {told.words(failed)}."
    paging = _NESTED_PAGING.get(extension)
    if failed.reason == told.FAIL_ENTRY and paging and paging not in seen.flags:
        why += (
            f" L1 has no nested paging (the CPU flag {paging}): with -cpu {cpu} it does not get it. Take the "
            "cpu host, or a model that has it."
        )
    return why


def _texts(value: object) -> tuple[str, ...]:
    """A list of short texts, as far as it is one."""
    return tuple(_short(one) for one in value if isinstance(one, str)) if isinstance(value, list) else ()


def _short(text: str) -> str:
    """Somebody else's words, fit for a terminal."""
    return harmless(text).replace("\n", "; ")[:_TAIL]
