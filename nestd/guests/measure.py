# SPDX-License-Identifier: LGPL-2.1-or-later
"""MeasureExit: what one exit of a small guest on this machine's own KVM costs."""

from __future__ import annotations

import os
import sys

from nestd.errors import Malformed, NotSupported, Timeout, ToolFailed, ToolMissing, VerifyFailed
from nestd.guests.probe import told
from nestd.guests.probe.told import Exits
from nestd.host.commands import Commands
from nestd.host.root import Root

# Seconds: what the rounds may take, and until the child is given up (Python has to start on a slow machine).
_ROUNDS = 0.8
_LIMIT = 30.0
_MACHINES = ("x86_64", "i686")


async def measure(
    root: Root, commands: Commands, *, limit: float = _LIMIT, python: str = sys.executable
) -> Exits:
    """Run the small guest in a process of its own, by `python`, and time its exits.

    To be called only where a driver is loaded or built in: to open a static /dev/kvm loads `kvm`. While it
    runs it holds the driver. NotSupported (kvm-unusable, with what the kernel said: KVM runs no guest),
    Timeout, VerifyFailed.
    """
    if (machine := os.uname().machine) not in _MACHINES:
        raise NotSupported(f"kvm-unusable: exits are measured on x86 alone, and this machine is {machine}.")
    program = os.path.join(os.path.dirname(__file__), "probe", "exits.py")
    argv = (python, "-I", "-S", program, root.path("/dev/kvm"), str(_ROUNDS))
    try:
        done = await commands.run(*argv, limit=limit)
    except ToolMissing as error:
        raise VerifyFailed(
            f"The small guest could not be started: {error}. If Python was upgraded, restart nestd "
            "(`systemctl restart nestd`)."
        ) from error
    except ToolFailed as error:
        if error.code != -1:
            raise VerifyFailed(f"The small guest could not be started: {error.words}.") from error
        raise Timeout(
            f"KVM did not finish with a guest of a few instructions within {limit:g} s: it hangs here, and "
            "would with every guest. The kernel's log (`journalctl -k`) may say why."
        ) from error
    known = told.merged(done.out)
    try:
        failed = told.failure(known)
        if failed and failed.stage == "time":
            raise Timeout(
                f"{told.words(failed)}: the machine is very busy, or KVM hangs. Try again; the kernel's log "
                "(`journalctl -k`) may say why."
            )
        if failed and known.get("ran") is True:
            raise VerifyFailed(f"The small guest ran, but was not measured to the end: {told.words(failed)}.")
        if failed:
            raise NotSupported(f"kvm-unusable: {told.words(failed)}. `nestctl diagnose` tells more.")
        found = told.exits(known)
    except Malformed as error:
        raise VerifyFailed(f"The small guest's numbers cannot be read: {error}.") from error
    if found is None:
        raise VerifyFailed(f"The small guest ended without its numbers: {_last_line(done.err, done.code)}")
    return found


def _last_line(err: str, code: int) -> str:
    lines = err.strip().splitlines()
    return lines[-1] if lines else f"exit status {code}."
