# SPDX-License-Identifier: LGPL-2.1-or-later
"""bootc: arguments of a source of their own, by `bootc loader-entries set-options-for-source`.

bootc remembers each source's arguments in the boot loader entry (x-options-source-nestd) and carries them
from one image to the next. What others have set it cannot take away. The verb came in 2026 and needs ostree
2026.1; before it, arguments came only from the image (/usr/lib/bootc/kargs.d). It stages a deployment, so the
entry itself changes when the machine shuts down.

Sources: bootc-loader-entries-set-options-for-source(8); bootc, crates/lib/src/loader_entries.rs and
tmt/tests/booted/test-loader-entries-source.nu at commit 534c76ea.
"""

from __future__ import annotations

from nestd import errors
from nestd.errors import ToolFailed
from nestd.host import ostree
from nestd.host.bootloader import NextBoot
from nestd.host.machine import Host
from nestd.nesting.loaders.ostree import without_rpm_ostree
from nestd.nesting.loaders.probe import Probe
from nestd.nesting.loaders.words import Turn, mine, settled, turned
from nestd.nesting.own import Own
from nestd.nesting.steps import Run, Step
from nestd.text.arguments import Edit, has

_SET = ("bootc", "loader-entries", "set-options-for-source", "--source", "nestd")
_ASK = ("bootc", "loader-entries", "--help")


async def knows_sources(host: Host) -> bool:
    """Whether this bootc has the verb. Raises ToolMissing and ToolFailed."""
    found = await host.commands.run(*_ASK)
    return found.code == 0 and "set-options-for-source" in found.out


class Bootc:
    """Sets the arguments of the source `nestd`."""

    name = "bootc"
    title = "bootc (bootc loader-entries set-options-for-source)"

    async def probe(self, host: Host, following: NextBoot | None) -> Probe:  # noqa: ARG002 -- any will do
        if no := without_rpm_ostree(host, "bootc"):
            return no
        try:
            if await knows_sources(host):
                return Probe.fits(
                    f"{ostree.BOOTED} is there, and bootc has loader-entries set-options-for-source"
                )
        except ToolFailed as failure:
            return Probe.unsure(f"bootc does not say what it can do ({failure})")
        return Probe.unsure(
            "this bootc has no loader-entries set-options-for-source (new in 2026), so its arguments come "
            "from the image alone: put them into the image's /usr/lib/bootc/kargs.d/10-nestd.toml"
        )

    async def steps(self, host: Host, own: Own, wanted: Edit) -> tuple[tuple[Step, ...], Own]:
        now = ostree.options(host.root)
        if now is None:
            raise errors.BootloaderFailed(
                f"{ostree.ENTRIES} has no entry that ostree wrote, so the arguments until now are not known. "
                "Look at `bootc status`; nothing was changed."
            )
        own = mine(own, self.name)
        new = turned(now[0], own, wanted)
        if new.removed:
            raise errors.Overridden(
                f"{now[1]} has {' '.join(new.removed)}, which somebody else has set, and bootc can take away "
                "only what nestd has set. Nothing was changed. Take it out where it comes from, "
                "/usr/lib/bootc/kargs.d in the image or another --source, then try again."
            )
        after = settled(own, self.name, Turn(new.line, new.added, ()), {})
        if own.added == new.added and all(has(now[0], word) for word in new.added):
            return (), after
        return (Run(_setting(new.added), undo=_setting(own.added)),), after

    def script(self, own: Own) -> str:
        return " ".join(_SET) + "\n" if own.added else ""


def _setting(added: tuple[str, ...]) -> tuple[str, ...]:
    return (*_SET, "--options", " ".join(added)) if added else _SET
