# SPDX-License-Identifier: LGPL-2.1-or-later
"""rpm-ostree, as Silverblue, Kinoite, IoT and CoreOS have it: `rpm-ostree kargs`.

It stages a deployment with the changed arguments, over a pending update if there is one; its boot loader
entry is written when the machine shuts down. One transaction of its daemon runs at a time.
--append-if-missing and --delete-if-present compare whole words and do nothing where there is nothing to do,
so doing it twice is as doing it once. What was taken away comes back at the end of the line: --replace would
keep the place, and fail the second time.

Sources: rpm-ostree(1); rpm-ostree, src/app/rpmostree-builtin-kargs.cxx,
src/daemon/rpmostreed-transaction-types.cxx (kernel_arg_apply_patching) at commit d5ef5f0c.
"""

from __future__ import annotations

from collections import Counter

from nestd import errors
from nestd.errors import ToolFailed
from nestd.host import ostree
from nestd.host.bootloader import NextBoot
from nestd.host.machine import Host
from nestd.nesting.loaders.ostree import not_booted, not_installed
from nestd.nesting.loaders.probe import Probe
from nestd.nesting.loaders.words import mine, quoted, settled, turned
from nestd.nesting.own import Own
from nestd.nesting.steps import Run, Step
from nestd.text.arguments import Edit
from nestd.text.cmdline import words

_KARGS = ("rpm-ostree", "kargs")
_STATUS = ("rpm-ostree", "status", "--json")
# Seconds: its daemon is started for the question.
_LIMIT = 90.0


class RpmOstree:
    """Appends and deletes single words."""

    name = "rpm-ostree"
    title = "rpm-ostree (rpm-ostree kargs)"

    async def probe(self, host: Host, following: NextBoot | None) -> Probe:  # noqa: ARG002 -- any will do
        if no := not_booted(host) or not_installed(host, "rpm-ostree"):
            return no
        return Probe.fits(f"{ostree.BOOTED} is there, and rpm-ostree is installed")

    async def steps(self, host: Host, own: Own, wanted: Edit) -> tuple[tuple[Step, ...], Own]:
        await _refuse_busy(host)
        line = await _asked(host, _KARGS)
        own = mine(own, self.name)
        new = turned(line, own, wanted)
        after = settled(own, self.name, new, {})
        there, wished = Counter(words(line)), Counter(words(new.line))
        added, deleted = tuple((wished - there).elements()), tuple((there - wished).elements())
        if not added and not deleted:
            return (), after
        return (Run(_changing(added, deleted), undo=_changing(deleted, added)),), after

    def script(self, own: Own) -> str:
        if not own.added and not own.removed:
            return ""
        return quoted(*_changing(own.removed, own.added)) + "\n"


def _changing(added: tuple[str, ...], deleted: tuple[str, ...]) -> tuple[str, ...]:
    return (
        *_KARGS,
        *(f"--append-if-missing={word}" for word in added),
        *(f"--delete-if-present={word}" for word in deleted),
    )


async def _asked(host: Host, argv: tuple[str, ...]) -> str:
    """What a question is answered. Raises ToolMissing, ToolFailed."""
    found = await host.commands.run(*argv, limit=_LIMIT)
    if found.code:
        raise ToolFailed(argv, found.code, found.err)
    return found.out


async def _refuse_busy(host: Host) -> None:
    """Raises Busy while rpm-ostree's daemon has a transaction, which would refuse ours."""
    import json  # noqa: PLC0415 -- only where the command line is changed

    try:
        said = json.loads(await _asked(host, _STATUS))
        running = said.get("transaction") if isinstance(said, dict) else None
    except ValueError:
        running = None  # then the change itself is refused
    if running:
        # Method, client, path; "upgrade" is what a person knows.
        what = running[0] if isinstance(running, list) and isinstance(running[0], str) else "another change"
        raise errors.Busy(
            f"rpm-ostree has a transaction under way ({what}). Wait for it (`rpm-ostree status`) or end it "
            "(`rpm-ostree cancel`), then try again; nothing was changed."
        )
