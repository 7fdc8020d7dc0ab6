# SPDX-License-Identifier: LGPL-2.1-or-later
"""What nestctl prints of proofs and measurements: pure, values from the bus in, text out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .style import PLAIN, Style
from .table import Values, columns, listed, several, table, text, visible

_KINDS = {"kernel": "handled in the kernel", "user": "handled in user space"}
_UNITS = ((1e9, "s"), (1e6, "ms"), (1e3, "µs"))
Exits = Mapping[str, Mapping[str, float]]


def verified(values: Values, style: Style = PLAIN) -> str:
    """The result of Verify, as a person reads it: the verdict first, then how far it came."""
    if values.get("works") is True:
        verdict = style.good("works") + " — a guest of a guest ran on this machine"
    else:
        verdict = f"{style.bad('does not work')} — {text(values, 'why')}"
    rows = [
        ("Nesting", verdict),
        ("L1, the guest", _first(values)),
        *listed("Missing flags", [" ".join(several(values.get("missing")))]),
        ("Its KVM", _said(values, "kvm-loaded", "loaded", "not loaded")),
        ("L2, its guest", _second(values)),
    ]
    exits = values.get("exits")
    if isinstance(exits, dict) and exits:
        costs = (f"{time(exits[kind]['median'])} {_KINDS[kind]}" for kind in _KINDS if kind in exits)
        rows.append(("An exit of L2", ", ".join(costs)))
    rows += listed("Not measured", [values.get("unmeasured", "")])
    if values.get("works") is not True or values.get("unmeasured"):
        rows += listed("L1's kernel says", str(values.get("log", "")).split("\n"))
    return table([*rows, ("Took", _seconds(values.get("seconds")))], style)


def measured(values: Mapping[str, Any], style: Style = PLAIN) -> str:
    """MeasureExit, and Verify's part of it under `inside`: a table, and what it was measured on."""
    inside = values.get("inside")
    levels: list[tuple[str, Exits]] = [("a guest (L1)", values["exits"])]
    if inside is not None:
        levels.append(("its guest (L2)", inside["exits"]))
    rows = [("EXIT", "OF", "MEDIAN", "QUARTILES", "ROUNDS")]
    for kind, what in _KINDS.items():
        for whose, exits in levels:
            if kind in exits:
                spread = exits[kind]
                quartiles = f"{time(spread['low'])} to {time(spread['high'])}"
                rows.append((what, whose, time(spread["median"]), quartiles, visible(spread["rounds"])))
    out = columns(rows, style)
    if ratios := values.get("ratios"):
        told = " and ".join(f"{ratios[kind]:.3g} times ({_KINDS[kind]})" for kind in _KINDS if kind in ratios)
        out += f"One level deeper, an exit costs {told} as much.\n"
    elif inside is not None:
        why = text(inside, "unmeasured", "") or text(inside, "why")
        out += style.bad(f"L2 was not measured: {why}") + "\n"
    where = text(values, "virtualization", "") or "unknown"
    on = "on bare metal" if where == "none" else f"inside {where}"
    cpu_model = text(values, "cpu-model", "") or "a CPU without a name"
    return out + f"Measured on {cpu_model} with {text(values, 'driver')}, {on}.\n"


def ratios(outside: Exits, inside: Exits) -> dict[str, float]:
    """By kind of exit, how many times what it costs outside it costs inside."""
    return {
        kind: inside[kind]["median"] / outside[kind]["median"]
        for kind in _KINDS
        if kind in inside and kind in outside and outside[kind]["median"] > 0
    }


def cpu(values: Values, style: Style = PLAIN) -> str:
    """CheckCpu in both forms, and what was granted."""
    doubted = " ".join(doubts(values))
    verdict = style.warn(doubted) if doubted else style.good("A guest with it can nest on this machine.")
    forms = (style.bold("QEMU"), form(values, "qemu"), style.bold("libvirt"), form(values, "libvirt"))
    return "{}:\n{}{}:\n{}{}\n".format(*forms, verdict)


def form(values: Values, which: str) -> str:
    """One form alone, for a script or a domain's XML."""
    if which == "qemu":
        return f"-cpu {text(values, 'qemu')}\n"
    return "".join(f"{visible(line)}\n" for line in str(values.get("libvirt", "")).splitlines())


def doubts(values: Values, which: str = "libvirt") -> list[str]:
    """What QEMU did not grant, and for libvirt what it may make of it, as sentences; none if all is well."""
    missing = visible(", ".join(several(values.get("missing"))))
    without = f"without these flags: {missing}" if missing else "without the extension"
    found = []
    if values.get("nesting") is not True:
        found.append(f"A guest with it cannot nest on this machine: QEMU started it {without}.")
    elif missing:
        found.append(f"A guest with it can nest on this machine, but QEMU started it {without}.")
    if which == "libvirt":
        found += map(_unknown, several(values.get("unknown")))
    return found


def _unknown(name: str) -> str:
    unversioned = re.sub(r"-v[0-9]+$", "", name)
    instead = "take another one, or leave it out" if unversioned == name else f"take {visible(unversioned)}"
    return f"libvirt may not know {visible(name)}: {instead}."


def time(nanoseconds: object) -> str:
    """Nanoseconds with three digits, in the unit that fits: `812 ns`, `1.23 µs`, `45.6 ms`."""
    if not isinstance(nanoseconds, int | float):
        return "unknown"
    for size, unit in _UNITS:
        if nanoseconds >= 0.9995 * size:
            return f"{nanoseconds / size:#.3g}".rstrip(".") + f" {unit}"
    return f"{nanoseconds:.0f} ns"


def _first(values: Values) -> str:
    booted = values.get("boot-seconds")
    if not isinstance(booted, int | float) or booted <= 0:
        return f"did not say a word, CPU {text(values, 'cpu')}"
    has = "has the extension" if values.get("extension") is True else "without the extension"
    return f"booted in {_seconds(booted)}, CPU {text(values, 'cpu')}, {has}"


def _second(values: Values) -> str:
    if values.get("ran") is True:
        return "ran"
    return _said(values, "vm-created", "created, but did not run", "not created")


def _said(values: Values, key: str, yes: str, no: str) -> str:
    return yes if values.get(key) is True else no


def _seconds(value: object) -> str:
    return f"{value:.1f} s" if isinstance(value, int | float) else "unknown"
