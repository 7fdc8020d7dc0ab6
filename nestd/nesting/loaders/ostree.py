# SPDX-License-Identifier: LGPL-2.1-or-later
"""Plain ostree, as Debian and Endless have it: the first entry, by `ostree admin instutil set-kargs`.

That verb takes the whole line, so that doing it twice is as doing it once, and order, quotes and what is
there twice stay as they are. ostree gives `ostree=` its value anew, in its place, and writes its entries into
a new folder (loader.0, loader.1). `ostree admin kargs edit-in-place` can only append, and takes nothing whose
name is there. Other deployments are left alone; a later one takes the arguments over from the booted one.

Sources: ostree 2022.7 and 2026.4, src/ostree/ot-admin-instutil-builtin-set-kargs.c,
src/libostree/ostree-sysroot-deploy.c (ostree_sysroot_deployment_set_kargs).
"""

from __future__ import annotations

from nestd import errors
from nestd.errors import ToolMissing
from nestd.host import ostree
from nestd.host.bootloader import NextBoot
from nestd.host.machine import Host
from nestd.nesting.loaders.probe import Probe
from nestd.nesting.loaders.words import mine, quoted, settled, turn, turned
from nestd.nesting.own import Own
from nestd.nesting.steps import Run, Step
from nestd.text.arguments import Edit
from nestd.text.cmdline import words

_SET = ("ostree", "admin", "instutil", "set-kargs")
_BEFORE, _AFTER = "options before", "options after"


def installed(host: Host, tool: str) -> bool:
    """Whether the program is there."""
    try:
        host.commands.find(tool)
    except ToolMissing:
        return False
    return True


def not_booted(host: Host) -> Probe | None:
    """The answer of ostree's whole family where the system was booted otherwise. Raises OSError."""
    if host.root.exists(ostree.BOOTED):
        return None
    return Probe.no(f"{ostree.BOOTED} is not there: this system was not booted from a deployment of ostree")


def not_installed(host: Host, tool: str) -> Probe | None:
    """The answer where the program is missing."""
    return None if installed(host, tool) else Probe.no(f"the program {tool} is not installed")


def without_rpm_ostree(host: Host, tool: str) -> Probe | None:
    """The answer where it is not ostree's system, the program is missing, or rpm-ostree has the arguments."""
    if no := not_booted(host) or not_installed(host, tool):
        return no
    if installed(host, "rpm-ostree"):
        return Probe.no("rpm-ostree is installed, which keeps the arguments itself")
    return None


class Ostree:
    """Sets the first deployment's whole line."""

    name = "ostree"
    title = "ostree (ostree admin instutil set-kargs)"

    async def probe(self, host: Host, following: NextBoot | None) -> Probe:  # noqa: ARG002 -- any will do
        if no := without_rpm_ostree(host, "ostree"):
            return no
        entry = ostree.default(host.root)
        if entry is None:
            return Probe.no(f"{ostree.ENTRIES} has no entry that ostree wrote")
        if installed(host, "bootc"):
            from nestd.nesting.loaders.bootc import knows_sources  # noqa: PLC0415 -- it imports this file

            if await knows_sources(host):
                return Probe.no("bootc is installed, which keeps the arguments itself")
            return Probe.unsure("bootc is installed, and its image's kargs.d has a say in the arguments too")
        return Probe.fits(f"{ostree.BOOTED} is there, and {entry.path} is an entry that ostree wrote")

    async def steps(self, host: Host, own: Own, wanted: Edit) -> tuple[tuple[Step, ...], Own]:
        if host.root.exists(ostree.STAGED):
            raise errors.BootloaderFailed(
                f"An update is staged ({ostree.STAGED}), and ostree cannot change a staged deployment's "
                "arguments. Reboot into it, then try again; nothing was changed."
            )
        entry = ostree.default(host.root)
        if entry is None:
            raise errors.BootloaderFailed(
                f"{ostree.ENTRIES} has no entry that ostree wrote, so there are no arguments to be changed. "
                "Look at `ostree admin status`; nothing was changed."
            )
        line, own = entry.options, mine(own, self.name)
        if _same(line, own.notes.get(_AFTER)):
            before = _with_deployment(own.notes[_BEFORE], line)
            new = turn(before, wanted)
        else:
            before = turned(line, own, Edit()).line
            new = turned(line, own, wanted)
        after = settled(own, self.name, new, {_BEFORE: before, _AFTER: new.line})
        if words(new.line) == words(line):
            return (), own if (own.added, own.removed) == (new.added, new.removed) else after
        return (Run((*_SET, *_appended(new.line)), undo=(*_SET, *_appended(line))),), after

    def script(self, own: Own) -> str:
        if not own.added and not own.removed:
            return ""
        return _SCRIPT.format(
            entries=ostree.ENTRIES,
            added=quoted(*own.added),
            removed=quoted(*own.removed),
            after=quoted(own.notes.get(_AFTER, "")),
            before=quoted(own.notes.get(_BEFORE, "")),
        )


def _appended(line: str) -> tuple[str, ...]:
    return tuple(f"--append={word}" for word in words(line))


def _same(line: str, other: str | None) -> bool:
    """Whether two lines are the same but for the deployment that they boot."""
    return other is not None and words(_with_deployment(other, line)) == words(line)


def _with_deployment(line: str, other: str) -> str:
    """The line, booting the deployment that `other` boots."""
    boots = [word for word in words(other) if word.startswith("ostree=")]
    if len(boots) != 1:
        return line
    return " ".join(boots[0] if word.startswith("ostree=") else word for word in words(line))


# Split at blanks alone: words with quoted blanks come together again, as ostree puts a blank between all.
_SCRIPT = """\
deployed() {{ printf '%s' "$1" | sed 's/ostree=[^ ]*/ostree=/'; }}
entry=$(grep -H '^version ' {entries}/ostree-*.conf | sort -t' ' -k2,2n | tail -n1 | sed 's/:version .*//')
line=$(sed -n 's/^options //p' "$entry")
old=$line
if [ "$(deployed "$line")" = "$(deployed {after})" ]; then
    line={before}
else
    for word in {added}; do
        while case " $line " in *" $word "*) true;; *) false;; esac; do
            line=$(printf ' %s ' "$line" | awk -v w=" $word " '{{ at = index($0, w)
                print substr($0, 2, at - 1) substr($0, at + length(w), length($0) - at - length(w)) }}')
        done
    done
    for word in {removed}; do
        case " $line " in *" $word "*) ;; *) line="$line $word";; esac
    done
fi
if [ "$(deployed "$line")" != "$(deployed "$old")" ]; then
    set -f
    set --
    for word in $line; do set -- "$@" "--append=$word"; done
    set +f
    ostree admin instutil set-kargs "$@"
fi
"""
