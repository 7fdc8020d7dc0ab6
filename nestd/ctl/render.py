# SPDX-License-Identifier: LGPL-2.1-or-later
"""What nestctl prints of the machine: pure, values from the bus in, text out."""

from __future__ import annotations

from collections.abc import Sequence

from .style import PLAIN, Style
from .table import Values, columns, listed, several, table, text, visible

_STATES = {"loaded": "module, loaded", "builtin": "built in", "unloaded": "module, not loaded"}


def status(values: Values, style: Style = PLAIN) -> str:
    """GetStatus, as a person reads it."""
    rows = [
        ("Nesting", _nesting(values.get("nested"), style) + _running(values)),
        ("At next boot", _nesting(values.get("nested-at-boot"), style) + _decided(values)),
        *listed("Overridden", values.get("overridden")),
    ]
    if values.get("reboot-required") is True:
        rows.append(("Reboot", style.warn(f"required: {_reboot(values)}")))
    if values.get("pending-change"):
        rows.append(("Waiting", style.warn(_waiting(values))))
    rows.append(("Policy", text(values, "policy")))
    if cause := text(values, "drift", ""):
        rows.append(("Drift", style.bad(f"this is not what nestd was told: {cause}")))
    rows += [
        ("CPU extension", text(values, "extension") or "none"),
        ("Driver", _driver(values)),
        ("KVM", _kvm(values)),
        ("This machine", _virtualization(values)),
    ]
    if code := text(values, "obstacle", ""):
        meaning = text(values, "obstacle-meaning", "nestd does not say what it means")
        rows.append(("In the way", f"{style.bad(code)} — {meaning}"))
        if remedy := text(values, "obstacle-remedy", ""):
            rows.append(("", f"To do: {remedy}"))
    return table(rows, style)


def diagnosis(checks: Sequence[Values], style: Style = PLAIN) -> str:
    """Diagnose: a line for each check, its remedy on the next, and the sum."""
    marks = {"pass": style.good("ok  "), "warn": style.warn("warn"), "fail": style.bad("FAIL")}
    out, count = [], dict.fromkeys(marks, 0)
    for check in checks:
        verdict = text(check, "verdict")
        count[verdict] = count.get(verdict, 0) + 1
        identity = style.dim(f"[{text(check, 'id')}]")
        out.append(f"{marks.get(verdict, verdict)} {text(check, 'message')} {identity}")
        if remedy := text(check, "remedy", ""):
            out.append(f"     To do: {remedy}")
    out.append(", ".join(f"{number} {verdict}" for verdict, number in count.items()))
    return "\n".join(out) + "\n"


def holders(rows: Sequence[Values], style: Style = PLAIN) -> str:
    """ListHolders as a table."""
    if not rows:
        return "Nobody uses KVM.\n"
    keys = ("pid", "command", "machine", "unit")
    found = [tuple(text(row, key) or "-" for key in keys) for row in rows]
    return columns([("PID", "COMMAND", "MACHINE", "UNIT"), *found], style)


def change(values: Values, dry_run: bool, style: Style = PLAIN) -> str:
    """The result of Enable, Disable or Revert."""
    steps = [f"{number:3}. {visible(step)}" for number, step in enumerate(several(values.get("steps")), 1)]
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


def _nesting(value: object, style: Style) -> str:
    paint = {"on": style.good, "off": style.warn, "unsupported": style.bad}.get(str(value), style.plain)
    return paint(visible("unknown" if value is None else value))


def _reboot(values: Values) -> str:
    now, boot = (text(values, key) for key in ("nested", "nested-at-boot"))
    return f"nesting stays {now} in the running kernel, and is {boot} after a reboot"


def _waiting(values: Values) -> str:
    reach = {"runtime": "the running kernel", "boot": "the next boot", "both": "now and at the next boot"}
    scope = text(values, "pending-scope")
    return (
        f"nesting will be {text(values, 'pending-change')} ({reach.get(scope, scope)}) as soon as nobody "
        f"uses KVM; user {text(values, 'pending-user')} has asked for it"
    )


def _running(values: Values) -> str:
    return " (running)" if values.get("nested") == "on" else ""


def _decided(values: Values) -> str:
    source = text(values, "boot-source", "")
    return f" — decided by {source}" if source else ""


def _driver(values: Values) -> str:
    name = text(values, "driver")
    if not name:
        return "none"
    state = text(values, "driver-state")
    users = values.get("users")
    parts = [_STATES.get(state, state)]
    if state == "loaded" and isinstance(users, int):
        parts.append(f"{users} user" + ("" if users == 1 else "s"))
    return f"{name} ({', '.join(parts)})"


def _kvm(values: Values) -> str:
    api = values.get("kvm-api")
    if not isinstance(api, int) or api < 0:
        return "/dev/kvm cannot be used"
    extension = text(values, "extension", "") or "nothing"
    offered = f"offered {extension}" if values.get("guest-extension") is True else "not offered the extension"
    return f"API {api}, guests are {offered}"


def _virtualization(values: Values) -> str:
    where = text(values, "virtualization", "")
    if not where:
        return "unknown (systemd-detect-virt is not installed)"
    return "runs on bare metal" if where == "none" else f"runs in {where}"
