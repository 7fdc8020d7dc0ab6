# SPDX-License-Identifier: LGPL-2.1-or-later
"""What nestctl prints of guests: pure, values from the bus in, text out."""

from __future__ import annotations

from collections.abc import Sequence

from .style import PLAIN, Style
from .table import Values, columns, listed, several, table, text, visible


def guests(rows: Sequence[Values], style: Style = PLAIN) -> str:
    """The table of guests, as `guest_values` made them, each with `owner-name`."""
    if not rows:
        return "No guests.\n"
    rows_of = [("NAME", "STATE", "OWNER", "CPU", "NESTING", "MEMORY", "PID")]
    for row in rows:
        rows_of.append(
            (
                text(row, "name"),
                text(row, "state"),
                text(row, "owner-name"),
                text(row, "cpu"),
                "yes" if row.get("nesting") is True else "no",
                memory(row.get("memory")),
                text(row, "pid") if row.get("pid") else "-",
            )
        )
    return columns(rows_of, style)


def guest(values: Values, started: str, style: Style = PLAIN) -> str:
    """Everything about one guest; `started` is its time of start as a person reads it."""
    rows = [
        ("Name", style.bold(text(values, "name"))),
        ("State", text(values, "state")),
        ("Owner", f"{text(values, 'owner-name')} (uid {text(values, 'owner')})"),
        ("Unit", text(values, "unit")),
        ("Process", text(values, "pid") if values.get("pid") else "none"),
        ("CPU", text(values, "cpu")),
        ("Nesting", style.good("granted") if values.get("nesting") is True else style.warn("not granted")),
        *listed("Missing flags", [" ".join(several(values.get("missing-flags")))]),
        ("Memory", memory(values.get("memory"))),
        ("Virtual CPUs", text(values, "vcpus")),
        ("Started", started),
        ("Console", text(values, "console")),
    ]
    if values.get("exit-status"):
        rows.append(("Exit status", text(values, "exit-status")))
    return table(rows, style)


def launched(values: Values, extension: str, style: Style = PLAIN) -> str:
    """The verdict on a guest that was started: what its vCPU really got."""
    granted = style.good("granted") if values.get("nesting") is True else style.warn("not granted")
    missing = " ".join(several(values.get("missing-flags")))
    name, unit, owner, cpu = (text(values, key) for key in ("name", "unit", "owner", "cpu"))
    verdict = f"{style.bold(name)} runs as {unit} (uid {owner}), CPU {cpu}"
    verdict += f", {visible(extension) or 'nesting'}: {granted}"
    return verdict + (f"; missing flags: {visible(missing)}" if missing else "") + "\n"


def memory(value: object) -> str:
    """Bytes in the largest unit that leaves a whole number: `512M`, `2G`, `1000` (bytes)."""
    if not isinstance(value, int) or value <= 0:
        return "unknown"
    for unit, shift in (("T", 40), ("G", 30), ("M", 20), ("K", 10)):
        if value % (1 << shift) == 0:
            return f"{value >> shift}{unit}"
    return str(value)
