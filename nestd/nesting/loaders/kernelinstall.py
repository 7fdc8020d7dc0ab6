# SPDX-License-Identifier: LGPL-2.1-or-later
"""systemd-boot with entries that kernel-install makes: their options, and /etc/kernel/cmdline for later ones.

The entries that are there are edited in their one row of options, each replaced whole. kernel-install itself
is not run for them: it would write kernel and initramfs into the boot partition anew (after a power cut in
between, nothing boots), refuses the initramfs that is there as "the same file", lets dracut build another,
and forgets whatever else somebody has written into the entry.
"""

# No postponed annotations here: see nestd/model.py.

from nestd import errors
from nestd.errors import ToolMissing
from nestd.host import bootloader, files
from nestd.host.bootloader import NextBoot
from nestd.host.machine import Host
from nestd.host.ostree import BOOTED
from nestd.host.root import Root
from nestd.nesting.loaders import entries, sed, words
from nestd.nesting.loaders.entries import SHIPPED, TEMPLATE, Made
from nestd.nesting.loaders.probe import Probe
from nestd.nesting.own import Own
from nestd.nesting.steps import Run, Step, WriteFile
from nestd.text.arguments import Edit

SEED = "seed"
TOKENS = "tokens"
# Seconds, for a slow EFI system partition that has to be mounted first.
_LIMIT = 120.0
# The file is on the disk before it is renamed; what ends otherwise than in .conf is no entry. Idempotent.
_EDIT = """\
set -e
trap 'rm -f -- "$1.nestd"' EXIT
trap 'exit 1' HUP INT TERM
test -e "$1" || exit 0
cp -p -- "$1" "$1.nestd"
LC_ALL=C sed -E -e "$2" -- "$1" > "$1.nestd"
sync "$1.nestd"
mv -f -- "$1.nestd" "$1"
sync -f "$1"
"""


class KernelInstall:
    """The back end. Own's notes are what was there before: each entry's row, and all of /etc/kernel/cmdline.

    Instead of the latter, `seed` is what belongs there, where it was missing. `tokens` name the entries.
    """

    name = "kernel-install"
    title = "systemd-boot (/etc/kernel/cmdline and the entries that kernel-install made)"

    async def probe(self, host: Host, following: NextBoot | None) -> Probe:
        """By what is booted next: it must be an entry that kernel-install made for this system."""
        if why := _not_systemd_boot(host, following):
            return Probe.no(why)
        if following is not None and following.doubt:
            return Probe.unsure(following.doubt)
        path = _source(following)
        if not path.endswith(".conf"):
            return Probe.no(f"what is booted next is the unified kernel image {path}")
        if path not in {one.path for one in entries.made(host.root)}:
            return Probe.no(f"{path} is none of the entries that kernel-install makes for this system")
        return Probe.fits(f"systemd-boot boots {path}, which kernel-install made")

    async def steps(self, host: Host, own: Own, wanted: Edit) -> tuple[tuple[Step, ...], Own]:
        """See Loader. BootloaderUnknown: an entry's options are no text. BootloaderFailed: none is left."""
        mine = words.mine(own, self.name)
        had = Edit(mine.added, mine.removed)
        found = tuple(entries.made(host.root))
        _require(mine, found)
        notes: dict[str, str] = {TOKENS: " ".join(sorted({one.token for one in found}))}
        before = files.read(host.root, TEMPLATE)
        plain = _template(mine, before, had)
        new = plain
        if not wanted.empty:
            if plain is None:
                plain = notes[SEED] = mine.notes.get(SEED) or _seed(host.root, found, mine, had)
            else:
                notes[TEMPLATE] = plain
            new = entries.template_edited(plain, wanted)
        made: list[Step] = [] if new == before else [WriteFile(TEMPLATE, new, before)]
        for one in found:
            row = notes[one.key] = _row(mine, one, had)
            made += _edit(host.root, one, entries.row_edited(row, wanted))
        if wanted.empty:
            return tuple(made), own._replace(loader="", added=(), removed=(), notes={})
        after = own._replace(loader=self.name, added=wanted.add, removed=wanted.remove, notes=notes)
        return tuple(made), after

    def script(self, own: Own) -> str:
        """The same, of what was noted."""
        from nestd.nesting.loaders import kernelscript  # noqa: PLC0415 -- only where something is set

        return kernelscript.lines(own) if own.loader == self.name else ""


def _require(own: Own, found: tuple[Made, ...]) -> None:
    noted = [key for key in own.notes if key.endswith(".conf")]
    if noted and not found:
        raise errors.BootloaderFailed(
            f"None of the entries that nestd has edited is there ({', '.join(noted)}). Nothing was changed. "
            "Mount the boot partition, then try again."
        )


def _not_systemd_boot(host: Host, following: NextBoot | None) -> str:
    """Why it is another boot loader, or another that writes the entries."""
    if host.root.exists(BOOTED):
        return f"{BOOTED} is there, so ostree writes the command line"
    if following is None or following.loader != "systemd-boot":
        return f"what boots is {following.loader or 'another loader'}" if following else "no entry is found"
    try:
        host.commands.find("kernel-install")
    except ToolMissing as failure:
        return str(failure)
    return ""


def _source(following: NextBoot | None) -> str:
    """The file that what is booted next is written in; empty if it is not known."""
    source = following.source if following else ""
    return source.rpartition(":")[0] or source


def _template(own: Own, text: str | None, had: Edit) -> str | None:
    """/etc/kernel/cmdline as it would be without nestd."""
    seeded = own.notes.get(SEED)
    before = own.notes.get(TEMPLATE, seeded)
    if text is None or before is None:
        return text
    if text == entries.template_edited(before, had):
        return None if seeded is not None else before
    return entries.template_edited(text, entries.theirs(had, before, entries.template_has))


def _row(own: Own, one: Made, had: Edit) -> str:
    """An entry's row as it would be without nestd; one that came later was made of /etc/kernel/cmdline."""
    before = own.notes.get(one.key)
    if before is None:
        text = own.notes.get(TEMPLATE, own.notes.get(SEED, ""))
        return entries.row_edited(one.row, entries.theirs(had, text, entries.template_has))
    if one.row == entries.row_edited(before, had):
        return before
    return entries.row_edited(one.row, entries.theirs(had, before, entries.row_has))


def _seed(root: Root, found: tuple[Made, ...], own: Own, had: Edit) -> str:
    """What /etc/kernel/cmdline is to say where there is none."""
    shipped = root.read(SHIPPED)
    if shipped is not None:
        return shipped
    source = _source(bootloader.read(root))
    for one in found:
        if one.path == source:
            return entries.seed(_row(own, one, had), one.token)
    raise errors.BootloaderUnknown(
        f"{TEMPLATE} is missing, and what is booted next ({source or 'nothing that is known'}) is none of "
        "the entries that kernel-install makes for this system, so it is not known what belongs into it. "
        f"Nothing was changed. Write the kernel's arguments (root=...) into {TEMPLATE}, then try again."
    )


def _edit(root: Root, one: Made, row: str) -> tuple[Run, ...]:
    if row == one.row:
        return ()
    try:
        (row + one.row).encode()
    except UnicodeEncodeError:
        raise errors.BootloaderUnknown(
            f"The options in {one.path} are no UTF-8, so nestd leaves them alone. Nothing was changed. Put "
            "that right, then try again."
        ) from None
    change = sed.exchanged(one.row, row)
    argv = ("sh", "-c", _EDIT, "nestd", root.path(one.path), change)
    return (Run(argv, keeps=(one.path,), limit=_LIMIT, words=f"write {one.path}: {row.strip()}"),)
