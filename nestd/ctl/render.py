# SPDX-License-Identifier: LGPL-2.1-or-later
"""What nestctl prints: pure, values from the bus in, text out.

Nothing from the bus reaches the terminal raw: each text goes through `visible`. A key that is not
there (an older nestd) reads as `unknown`, never as an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from .style import PLAIN, Style

Values = Mapping[str, object]

_LABEL = 16  # columns up to the colon
_STATES = {"loaded": "module, loaded", "builtin": "built in", "unloaded": "module, not loaded"}


def visible(value: object) -> str:
    """The value as text in which whatever does not print is written as an escape (`\\x1b`, `\\u202e`)."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(value))


def lines(value: str) -> str:
    """A message that may have several lines: made visible, every further line indented."""
    return "\n    ".join(visible(line) for line in value.strip().split("\n"))


def status(values: Values, style: Style = PLAIN) -> str:
    """GetStatus, as a person reads it."""
    rows = [
        ("Nesting", _nesting(values.get("nested"), style) + _running(values)),
        ("At next boot", _nesting(values.get("nested-at-boot"), style) + _decided(values)),
        *_listed("Overridden", values.get("overridden")),
    ]
    if values.get("reboot-required") is True:
        rows.append(("Reboot", style.warn(f"required: {_reboot(values)}")))
    if values.get("pending-change"):
        rows.append(("Waiting", style.warn(_waiting(values))))
    rows.append(("Policy", _text(values, "policy")))
    if cause := _text(values, "drift", ""):
        rows.append(("Drift", style.bad(f"this is not what nestd was told: {cause}")))
    rows += [
        ("CPU extension", _text(values, "extension") or "none"),
        ("Driver", _driver(values)),
        ("KVM", _kvm(values)),
        ("This machine", _virtualization(values)),
    ]
    if code := _text(values, "obstacle", ""):
        meaning = _text(values, "obstacle-meaning", "nestd does not say what it means")
        rows.append(("In the way", f"{style.bad(code)} — {meaning}"))
        if remedy := _text(values, "obstacle-remedy", ""):
            rows.append(("", f"To do: {remedy}"))
    return _table(rows, style)


def diagnosis(checks: Sequence[Values], style: Style = PLAIN) -> str:
    """Diagnose: a line for each check, its remedy on the next, and the sum."""
    marks = {"pass": style.good("ok  "), "warn": style.warn("warn"), "fail": style.bad("FAIL")}
    out, count = [], dict.fromkeys(marks, 0)
    for check in checks:
        verdict = _text(check, "verdict")
        count[verdict] = count.get(verdict, 0) + 1
        identity = style.dim(f"[{_text(check, 'id')}]")
        out.append(f"{marks.get(verdict, verdict)} {_text(check, 'message')} {identity}")
        if remedy := _text(check, "remedy", ""):
            out.append(f"     To do: {remedy}")
    out.append(", ".join(f"{number} {verdict}" for verdict, number in count.items()))
    return "\n".join(out) + "\n"


def holders(rows: Sequence[Values], style: Style = PLAIN) -> str:
    """ListHolders as a table."""
    if not rows:
        return "Nobody uses KVM.\n"
    keys = ("pid", "command", "machine", "unit")
    found = [tuple(_text(row, key) or "-" for key in keys) for row in rows]
    return _columns([("PID", "COMMAND", "MACHINE", "UNIT"), *found], style)


def change(values: Values, dry_run: bool, style: Style = PLAIN) -> str:
    """The result of Enable, Disable or Revert."""
    steps = [f"{number:3}. {visible(step)}" for number, step in enumerate(_several(values.get("steps")), 1)]
    now, boot = (_nesting(values.get(key), style) for key in ("nested", "nested-at-boot"))
    if values.get("pending") is True:
        would = "would wait" if dry_run else "waits"
        steps = [f"KVM is in use: the change {would} until nobody uses it, then takes these steps:", *steps]
        verdict = f"Nesting is {now} now; at the next boot: {boot}."
        if not dry_run:
            verdict += " `nestctl holders` tells who uses KVM, `nestctl cancel` takes the change back."
    elif dry_run:
        verdict = f"Nothing was done. Nesting is {now} now; at the next boot: {boot}."
        steps = (
            ["It would take these steps:", *steps] if steps else ["There is nothing to do: it is already so."]
        )
    else:
        already = "" if values.get("changed") is True else "Already so: "
        verdict = f"{already}{'nesting' if already else 'Nesting'} is {now} now; at the next boot: {boot}."
    out = [*steps, verdict]
    if values.get("reboot-required") is True:
        out.append(style.warn(f"Reboot to settle it: {_reboot(values)}."))
    return "\n".join(out) + "\n"


def guests(rows: Sequence[Values], style: Style = PLAIN) -> str:
    """The table of guests, as `guest_values` made them, each with `owner-name`."""
    if not rows:
        return "No guests.\n"
    table = [("NAME", "STATE", "OWNER", "CPU", "NESTING", "MEMORY", "PID")]
    for row in rows:
        table.append(
            (
                _text(row, "name"),
                _text(row, "state"),
                _text(row, "owner-name"),
                _text(row, "cpu"),
                "yes" if row.get("nesting") is True else "no",
                memory(row.get("memory")),
                _text(row, "pid") if row.get("pid") else "-",
            )
        )
    return _columns(table, style)


def guest(values: Values, started: str, style: Style = PLAIN) -> str:
    """Everything about one guest; `started` is its time of start as a person reads it."""
    rows = [
        ("Name", style.bold(_text(values, "name"))),
        ("State", _text(values, "state")),
        ("Owner", f"{_text(values, 'owner-name')} (uid {_text(values, 'owner')})"),
        ("Unit", _text(values, "unit")),
        ("Process", _text(values, "pid") if values.get("pid") else "none"),
        ("CPU", _text(values, "cpu")),
        ("Nesting", style.good("granted") if values.get("nesting") is True else style.warn("not granted")),
        *_listed("Missing flags", [" ".join(_several(values.get("missing-flags")))]),
        ("Memory", memory(values.get("memory"))),
        ("Virtual CPUs", _text(values, "vcpus")),
        ("Started", started),
        ("Console", _text(values, "console")),
    ]
    if values.get("exit-status"):
        rows.append(("Exit status", _text(values, "exit-status")))
    return _table(rows, style)


def launched(values: Values, extension: str, style: Style = PLAIN) -> str:
    """The verdict on a guest that was started: what its vCPU really got."""
    granted = style.good("granted") if values.get("nesting") is True else style.warn("not granted")
    missing = " ".join(_several(values.get("missing-flags")))
    name, unit, owner, cpu = (_text(values, key) for key in ("name", "unit", "owner", "cpu"))
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


def _columns(table: Sequence[tuple[str, ...]], style: Style) -> str:
    """Columns as wide as they have to be, under the head that is the first row."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    out = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
    return "\n".join([style.bold(out[0]), *out[1:]]) + "\n"


def _table(rows: Iterable[tuple[str, str]], style: Style) -> str:
    return "".join(
        f"{style.bold(f'{label:>{_LABEL}}:')} {value}\n" if label else f"{'':{_LABEL + 1}} {value}\n"
        for label, value in rows
    )


def _listed(label: str, value: object) -> list[tuple[str, str]]:
    found = [visible(item) for item in _several(value) if item]
    return [(label if number == 0 else "", item) for number, item in enumerate(found)]


def _several(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _text(values: Values, key: str, default: str = "unknown") -> str:
    return visible(values.get(key, default))


def _nesting(value: object, style: Style) -> str:
    paint = {"on": style.good, "off": style.warn, "unsupported": style.bad}.get(str(value), style.plain)
    return paint(visible("unknown" if value is None else value))


def _reboot(values: Values) -> str:
    now, boot = (_text(values, key) for key in ("nested", "nested-at-boot"))
    return f"nesting stays {now} in the running kernel, and is {boot} after a reboot"


def _waiting(values: Values) -> str:
    reach = {"runtime": "the running kernel", "boot": "the next boot", "both": "now and at the next boot"}
    scope = _text(values, "pending-scope")
    return (
        f"nesting will be {_text(values, 'pending-change')} ({reach.get(scope, scope)}) as soon as nobody "
        f"uses KVM; user {_text(values, 'pending-user')} has asked for it"
    )


def _running(values: Values) -> str:
    return " (running)" if values.get("nested") == "on" else ""


def _decided(values: Values) -> str:
    source = _text(values, "boot-source", "")
    return f" — decided by {source}" if source else ""


def _driver(values: Values) -> str:
    name = _text(values, "driver")
    if not name:
        return "none"
    state = _text(values, "driver-state")
    users = values.get("users")
    parts = [_STATES.get(state, state)]
    if state == "loaded" and isinstance(users, int):
        parts.append(f"{users} user" + ("" if users == 1 else "s"))
    return f"{name} ({', '.join(parts)})"


def _kvm(values: Values) -> str:
    api = values.get("kvm-api")
    if not isinstance(api, int) or api < 0:
        return "/dev/kvm cannot be used"
    extension = _text(values, "extension", "") or "nothing"
    offered = f"offered {extension}" if values.get("guest-extension") is True else "not offered the extension"
    return f"API {api}, guests are {offered}"


def _virtualization(values: Values) -> str:
    where = _text(values, "virtualization", "")
    if not where:
        return "unknown (systemd-detect-virt is not installed)"
    return "runs on bare metal" if where == "none" else f"runs in {where}"
