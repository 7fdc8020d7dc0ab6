# SPDX-License-Identifier: LGPL-2.1-or-later
"""GRUB as Debian and Ubuntu have it: a file of nestd's own in /etc/default/grub.d, and update-grub.

grub-mkconfig sources /etc/default/grub and then /etc/default/grub.d/*.cfg, and /etc/grub.d/10_linux makes of
it `linux KERNEL root=... ro $GRUB_CMDLINE_LINUX $GRUB_CMDLINE_LINUX_DEFAULT`, and the recovery entries with
GRUB_CMDLINE_LINUX alone. So nestd's argument goes into GRUB_CMDLINE_LINUX, and somebody else's that is to go
is taken out of both by the same file: nobody else's is touched, and to remove it is to take all back.
20_linux_xen reads other variables, which do not matter: under Xen there is no KVM.
"""

# No postponed annotations here: see nestd/model.py.

import re
import shlex
from collections.abc import Iterator

from nestd import errors
from nestd.errors import ToolMissing
from nestd.host import bootloader, files
from nestd.host.bootloader import NextBoot
from nestd.host.machine import Host
from nestd.host.ostree import BOOTED
from nestd.host.root import Root
from nestd.nesting.loaders import sed
from nestd.nesting.loaders.ostree import installed
from nestd.nesting.loaders.probe import Probe
from nestd.nesting.loaders.words import mine
from nestd.nesting.own import Own
from nestd.nesting.steps import Run, Step, WriteFile
from nestd.text.arguments import Edit, has

FOLDER = "/etc/default/grub.d"
PATH = f"{FOLDER}/zz-nestd.cfg"
SETTINGS = "/etc/default/grub"
SCRIPTS = "/etc/grub.d"
MADE = "/boot/grub/grub.cfg"
_TOOL = "update-grub"
# In the system's language: the titles are translated, and GRUB_DEFAULT may name one.
_NEW = f"{MADE}.nestd"
# grub-mkconfig ends with `cat NEW > grub.cfg`: without power in that moment, nothing could be booted. So it
# writes elsewhere (of -o the last counts), and that is renamed; a system's own update-grub may not heed it.
_RENAMED = f"""\
env -u LC_ALL {_TOOL} -o "$1" || {{ rm -f "$2" "$2.new"; exit 1; }}
test -e "$2" || exit 0
chmod --reference="$3" "$2"
sync -f "$2"
mv -f "$2" "$(readlink -f "$3")"
"""
_UPDATE = ("sh", "-c", _RENAMED, "nestd")
_HEAD = """\
# Kernel arguments for nested virtualization, as nestd was told (nestctl enable, disable). Edit nothing here.
# To take them back: nestctl revert. Without nestd: remove this file, then run update-grub.
"""
_BEGIN = re.compile(rf"### BEGIN ({SCRIPTS}/\w[^/\s]*) ###")
_SETS = re.compile(r"^[ \t]*(?:export[ \t]+)?GRUB_CMDLINE_LINUX(?:_DEFAULT)?(\+?)=(.*)", re.MULTILINE)
_BLS = re.compile(r"^[ \t]*GRUB_ENABLE_BLSCFG=[\"']?(\w+)", re.MULTILINE)


class Grub:
    """The back end. Source: grub-mkconfig and util/grub.d/10_linux.in of GRUB 2.06 and 2.12."""

    name = "grub"
    title = "GRUB (/etc/default/grub.d and update-grub)"

    async def probe(self, host: Host, following: NextBoot | None) -> Probe:
        """By the text of grub-mkconfig, and by who has made what is booted next."""
        why = _not_grub(host.root, following) or _not_debians(host)
        if why:
            return Probe.no(why)
        return Probe.fits(f"grub-mkconfig reads {FOLDER}, and GRUB reads {MADE}")

    async def steps(self, host: Host, own: Own, wanted: Edit) -> tuple[tuple[Step, ...], Own]:
        """See Loader. Overridden: what is booted next, or an argument that is to go, comes from elsewhere."""
        text = _text(wanted)
        before = files.read(host.root, PATH)
        ours = mine(own, self.name)
        name = "" if wanted.empty else self.name
        after = own._replace(loader=name, added=wanted.add, removed=wanted.remove)
        if text is not None:
            _require(host.root, ours, wanted)
        if text == before and (ours.added, ours.removed) == wanted and _effective(host.root, wanted):
            return (), after
        written = () if text == before else (WriteFile(PATH, text, before),)
        if wanted.empty and not installed(host, _TOOL):
            return written, after  # another boot loader has taken GRUB's place
        argv = (*_UPDATE, _NEW, *map(host.root.path, (_NEW, MADE)))
        return (*written, Run(argv, keeps=(MADE,), words=f"run {_TOOL}")), after

    def script(self, own: Own) -> str:
        """The file goes, and grub.cfg is made anew."""
        if own.loader != self.name:
            return ""
        return f"rm -f {PATH}\n! command -v {_TOOL} >/dev/null || {_TOOL}\n"


def _not_grub(root: Root, following: NextBoot | None) -> str:
    """Why GRUB is not what boots, or not from a grub.cfg that grub-mkconfig has made."""
    if root.exists(BOOTED):
        return f"{BOOTED} is there, so ostree writes the command line"
    if following is None or following.loader != "GRUB":
        return (
            f"what boots is {following.loader or 'another loader'}" if following else "no grub.cfg is found"
        )
    if boots_entries(root):
        return "GRUB_ENABLE_BLSCFG is true, so GRUB's arguments are in /boot/loader/entries"
    source = following.source.rpartition(":")[0]
    if source and not source.startswith("/boot/grub/"):
        return f"GRUB reads {source}, and update-grub writes {MADE}"
    if not any(_BEGIN.fullmatch(row.strip()) for row in (root.read(MADE) or "").split("\n")):
        return f"{MADE} was not made by grub-mkconfig, which would overwrite it"
    return ""


def _not_debians(host: Host) -> str:
    """Why /etc/default/grub.d would not do."""
    try:
        text = Root().read(host.commands.find("grub-mkconfig")) or ""
        host.commands.find(_TOOL)
    except ToolMissing as failure:
        return str(failure)
    return "" if "/default/grub.d" in text else f"this system's grub-mkconfig does not read {FOLDER}"


def boots_entries(root: Root) -> bool:
    """Whether GRUB's arguments are in Boot Loader Specification entries (Fedora, RHEL)."""
    found = [match[1] for _, text in _settings(root) for match in _BLS.finditer(text)]
    return found[-1:] == ["true"]


def _text(wanted: Edit) -> str | None:
    if wanted.empty:
        return None
    text = _HEAD
    if wanted.remove:
        program = shlex.quote("\n".join(sed.without(wanted.remove, single=True)))
        text += f"# Somebody else's, taken out: {' '.join(wanted.remove)}\nnestd_without={program}\n"
        for name in "GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT":
            text += f"""{name}=$(printf '%s\\n' "${name}" | LC_ALL=C sed -E "$nestd_without")\n"""
    if wanted.add:
        words = re.sub(r'([\\"$`])', r"\\\1", " ".join(wanted.add))
        text += f'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX {words}"\n'
    return text


def _settings(root: Root) -> Iterator[tuple[str, str]]:
    """What grub-mkconfig sources, in its order, without nestd's."""
    names = [f"{FOLDER}/{name}" for name in root.files(FOLDER) if name.endswith(".cfg") and name[0] != "."]
    for path in (SETTINGS, *names):
        if path != PATH and (text := root.read(path)) is not None:
            yield path, text


def _effective(root: Root, wanted: Edit) -> bool:
    """Whether grub.cfg has it already; True where that cannot be told."""
    following = bootloader.read(root)
    if following is None or following.doubt:
        return True
    line = following.command_line
    return all(has(line, word) for word in wanted.add) and not any(has(line, word) for word in wanted.remove)


def _require(root: Root, own: Own, wanted: Edit) -> None:
    """Raises Overridden where the file in grub.d would not do."""
    maker, source = _maker(root)
    if maker and "GRUB_CMDLINE_LINUX" not in (root.read(maker) or ""):
        raise errors.Overridden(
            f"What is booted next is the entry at {source}, and {maker} makes it without GRUB_CMDLINE_LINUX, "
            f"so nothing in {SETTINGS} changes its arguments. Nothing was changed. Edit {maker} "
            f"({_words(wanted)}), then run update-grub."
        )
    told = list(_settings(root))
    for path, text in told:
        if _behind(path) and any(_forgets(match) for match in _SETS.finditer(text)):
            raise errors.Overridden(
                f"{path} is read after {PATH} and sets GRUB_CMDLINE_LINUX anew, so nestd's argument would be "
                "lost. Nothing was changed. Give it a name that sorts before zz-nestd.cfg, then try again."
            )
    for word in wanted.remove:
        if word not in own.removed:
            _require_place(root, told, word, source)


def _require_place(root: Root, told: list[tuple[str, str]], word: str, source: str) -> None:
    """Raises Overridden unless the word that is to go comes from a file that is read before nestd's."""
    regular = re.compile(rf"(?<![\w.-]){sed.word(word)}(?![\w.-])")
    places = [path for path, text in told if regular.search(text)]
    late = [path for path in places if _behind(path)]
    if places and not late:
        return
    named = [f"{SCRIPTS}/{name}" for name in root.files(SCRIPTS)]
    late += [path for path in named if not places and regular.search(root.read(path) or "")]
    where = late[0] if late else source or MADE
    straight = "" if late else f" and was written straight into it: {SETTINGS} and {FOLDER} do not have it"
    raise errors.Overridden(
        f"{word} is in {where}{straight}, so nestd cannot take it away. Nothing was changed. Take it out "
        "there, run update-grub, then try again."
    )


def _maker(root: Root) -> tuple[str, str]:
    """The script in /etc/grub.d that makes what is booted next, and where that is; empty: not known."""
    following = bootloader.read(root)
    if following is None or following.doubt:
        return "", ""
    path, _, line = following.source.rpartition(":")
    if path != MADE:
        return path, following.source
    above = (root.read(MADE) or "").split("\n")[: int(line)]
    found = [match[1] for row in above if (match := _BEGIN.fullmatch(row.strip()))]
    return (found[-1] if found else ""), following.source


def _behind(path: str) -> bool:
    """Whether it may be read after nestd's file: the shell's order is the locale's, which may skip signs."""
    name = path.rpartition("/")[2]
    return path.startswith(FOLDER) and (name > "zz-nestd.cfg" or _letters(name) > _letters("zz-nestd.cfg"))


def _letters(name: str) -> str:
    return "".join(one for one in name.casefold() if one.isalnum())


def _forgets(match: re.Match[str]) -> bool:
    return not match[1] and "GRUB_CMDLINE_LINUX" not in match[2]


def _words(wanted: Edit) -> str:
    parts = [f"take out {word}" for word in wanted.remove] + [f"add {word}" for word in wanted.add]
    return ", ".join(parts)
