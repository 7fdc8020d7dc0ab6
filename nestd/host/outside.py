# SPDX-License-Identifier: LGPL-2.1-or-later
"""Long tools, run outside nestd's sandbox: as a transient unit of systemd, which outlives nestd.

One at a time, under one name: whoever finds it running waits for its end before anything else is changed.
What it says is in the journal (journalctl -u nestd-change).
"""

from __future__ import annotations

from collections.abc import Sequence

from nestd import tasks
from nestd.errors import CallFailed, ToolFailed
from nestd.host.commands import Commands
from nestd.host.units import OVER, JobFailed, UnitExists, Units
from nestd.host.words import harmless, last_words
from nestd.wire.library import Variant

UNIT = "nestd-change.service"
# Seconds beyond the tool's own limit, within which systemd has to end what does not end by itself.
_GRACE = 100.0


async def run(units: Units | None, commands: Commands, argv: Sequence[str], limit: float) -> None:
    """Run a program to its end within `limit` seconds; without `units` as a child (no systemd is there).

    Raises ToolMissing, and ToolFailed with its last lines (code -1: out of time, or systemd did not do it).
    """
    program = commands.find(argv[0])
    if units is None:
        done = await commands.run(*argv, limit=limit)
        if done.code:
            raise ToolFailed(argv, done.code, harmless(done.err) or harmless(done.out))
        return
    # systemd puts in what follows a single $ (systemd.service(5), COMMAND LINES).
    words = [one.replace("$", "$$") for one in argv]
    properties = [
        ("Description", Variant("s", f"nestd runs {argv[0]}")),
        ("Type", Variant("s", "oneshot")),
        ("ExecStart", Variant("a(sasb)", [[program, words, False]])),
        ("Environment", Variant("as", [f"PATH={commands.path}", "LC_ALL=C.UTF-8"])),
        ("TimeoutStartUSec", Variant("t", int(limit * 1e6))),
        ("SyslogIdentifier", Variant("s", argv[0].rpartition("/")[2])),
        ("UMask", Variant("u", 0o022)),
    ]
    try:
        await units.reset_failed(UNIT)
        await units.start_transient(UNIT, properties, limit + _GRACE)
    except UnitExists as failure:
        raise ToolFailed(argv, -1, f"an earlier tool still runs: systemctl status {UNIT}") from failure
    except JobFailed as failure:
        raise await _why(units, commands, argv, failure) from failure
    except CallFailed as failure:
        raise ToolFailed(argv, -1, f"systemd could not start it: {failure.text}") from failure


async def settle(units: Units | None, limit: float) -> None:
    """Wait, `limit` seconds, for the end of what an earlier nestd has started. TimeoutError, CallFailed."""
    if units is None:
        return
    watch = await units.follow(UNIT)
    try:
        await units.settle(watch)
        async with tasks.timeout(limit):
            await watch.ended
    finally:
        await watch.close()
    await units.reset_failed(UNIT)


async def _why(units: Units, commands: Commands, argv: Sequence[str], failure: JobFailed) -> ToolFailed:
    """The failure with the tool's own words; systemd is told to forget the unit."""
    try:
        known = await units.properties(UNIT)
        text = await last_words(commands, known)
        code = int(known.get("ExecMainStatus", 0)) or -1
        if known.get("Result") == "timeout" or failure.result == "timeout":
            code, text = -1, f"it did not end in time. {text}"
        if known.get("ActiveState") not in OVER:
            await units.kill(UNIT, 9)
        await units.reset_failed(UNIT)
    except CallFailed as error:
        return ToolFailed(argv, -1, f"{failure.result} ({error.text})")
    return ToolFailed(argv, code, text)
