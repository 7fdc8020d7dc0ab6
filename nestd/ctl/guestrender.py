# SPDX-License-Identifier: LGPL-2.1-or-later
"""What nestctl prints of guests: pure, values from the bus in, text out."""

from __future__ import annotations

from collections.abc import Sequence

from .style import PLAIN, Style
from .table import Values, columns, listed, several, table, text, visible, wrapped


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


def guest(values: Values, extension: str, times: tuple[str, str], style: Style = PLAIN) -> str:
    """Everything about one guest; `times` are those of its start and of its end as a person reads them.

    `extension` is the CPU's, which the verdict is about.
    """
    over = values.get("state") in ("exited", "failed")
    rows = [
        ("Name", style.bold(text(values, "name"))),
        ("State", state(values)),
        ("Owner", f"{text(values, 'owner-name')} (uid {text(values, 'owner')})"),
        ("Unit", text(values, "unit")),
        ("Process", text(values, "pid") if values.get("pid") else "none"),
        ("CPU", text(values, "cpu")),
        ("Nesting", _verdict(values, extension, style)),
        *_missing(values, extension),
        ("Memory", memory(values.get("memory"))),
        ("Virtual CPUs", text(values, "vcpus")),
        *([("Lab", text(values, "lab"))] if values.get("lab") else []),
        ("Started", times[0]),
        *([("Ended", times[1])] if over else [("Console", text(values, "console"))]),
        *([("Screen (VNC)", text(values, "vnc"))] if values.get("vnc") and not over else []),
        *listed("Last words", values.get("last-words")),
    ]
    return table(rows, style)


def state(values: Values) -> str:
    """The state, and what there is to say about it."""
    now, status = text(values, "state"), text(values, "exit-status")
    if values.get("state") == "stopping":
        doing = {"power-button": ": its power button was pressed", "unit": ": systemd stops its unit"}
        return now + doing.get(str(values.get("stopping")), "")
    if values.get("state") not in ("exited", "failed"):
        return now
    how = {
        # Of the signals that systemd takes for a good end it is the number.
        "success": f"QEMU {'ended with status' if status == '0' else 'was ended by signal'} {status}",
        "exit-code": f"QEMU ended with status {status}",
        "signal": f"QEMU was ended by signal {status}",
        "core-dump": f"QEMU was ended by signal {status}",
        "oom-kill": "it used more memory than its unit may and was killed",
        "": "nobody saw how",
    }
    return f"{now}: {how.get(str(values.get('result')), text(values, 'result'))}"


def _verdict(values: Values, extension: str, style: Style) -> str:
    """Whether the guest can have guests of its own, and why."""
    flag = visible(extension) or "the extension"
    if values.get("nesting") is True:
        return f"{style.good('granted')}: its virtual CPU has {flag}, so it can run guests of its own"
    return f"{style.warn('not granted')}: its virtual CPU lacks {flag}, so KVM does not work in it"


def _missing(values: Values, extension: str) -> list[tuple[str, str]]:
    """The flags that did not reach the guest, how many, and what to do where the extension is one."""
    flags = several(values.get("missing-flags"))
    if not flags:
        return []
    rows = wrapped("Missing flags", f"{_counted(flags)} did not reach the guest:", flags)
    if extension not in flags:
        return rows
    taken = f"-{extension}" in str(values.get("cpu")).split(",")
    why = "its CPU takes it away" if taken else "see `nestctl diagnose`"
    return [*rows, ("", f"({visible(extension)}: {why})")]


def _counted(flags: Sequence[str]) -> str:
    return f"{len(flags)} CPU flag{'' if len(flags) == 1 else 's'}"


def launched(values: Values, extension: str, style: Style = PLAIN) -> str:
    """The verdict on a guest that was started: what its vCPU really got."""
    granted = style.good("granted") if values.get("nesting") is True else style.warn("not granted")
    missing = several(values.get("missing-flags"))
    name, unit, owner, cpu = (text(values, key) for key in ("name", "unit", "owner", "cpu"))
    verdict = f"{style.bold(name)} runs as {unit} (uid {owner}), CPU {cpu}"
    verdict += f", {visible(extension) or 'nesting'}: {granted}"
    less = f"; {_counted(missing)} did not reach it (`nestctl show {name}`)" if missing else ""
    return verdict + less + "\n"


def memory(value: object) -> str:
    """Bytes in the largest unit that leaves a whole number: `512M`, `2G`, `1000` (bytes)."""
    if not isinstance(value, int) or value <= 0:
        return "unknown"
    for unit, shift in (("T", 40), ("G", 30), ("M", 20), ("K", 10)):
        if value % (1 << shift) == 0:
            return f"{value >> shift}{unit}"
    return str(value)
