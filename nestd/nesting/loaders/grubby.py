# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fedora and RHEL: boot loader entries that GRUB reads, changed by grubby, kernel by kernel.

`grubby --update-kernel=ALL` would also take the argument from kernels that somebody gave another value,
write /etc/kernel/cmdline from whichever entry comes last, and turn every line of /etc/default/grub that
begins with GRUB_CMDLINE_LINUX (GRUB_CMDLINE_LINUX_DEFAULT too) into the same one. So grubby is given one
kernel after the other, and these two files, from which later kernels and grub2-mkconfig take their arguments,
are written here.

Each file is recorded as it was found. Where grubby's own way back does not give that byte for byte, and
nobody else has changed it since, it is written back.

Sources: grubby(8); grubby-bls of grubby 8.40-63.el9 and of Fedora 38; grub2's 20-grub.install.
"""

from __future__ import annotations

from nestd import errors
from nestd.host import bootloader, ostree
from nestd.host.bootloader import KERNEL_CMDLINE, NextBoot
from nestd.host.machine import Host
from nestd.host.root import Root
from nestd.nesting.loaders import grubbyfiles as entries
from nestd.nesting.loaders.grubbyfiles import DEFAULTS, ENTRIES, Asked
from nestd.nesting.loaders.ostree import not_installed
from nestd.nesting.loaders.probe import Probe
from nestd.nesting.loaders.words import mine
from nestd.nesting.own import Own
from nestd.nesting.steps import Run, Step, WriteFile
from nestd.text.arguments import Edit
from nestd.text.cmdline import words

# grubby hands the whole line to sed as the new text, where they mean something.
_GARBLED = "&\\"
_WRITE = """\
set -e
trap 'rm -f -- "$1.nestd"' EXIT
trap 'exit 1' HUP INT TERM
cp -p -- "$1" "$1.nestd"
printf %s "$2" > "$1.nestd"
sync "$1.nestd"
mv -f -- "$1.nestd" "$1"
sync -f "$1"
"""


class Grubby:
    """Gives each kernel's entry its arguments."""

    name = "grubby"
    title = "GRUB with boot loader entries (grubby)"

    async def probe(self, host: Host, following: NextBoot | None) -> Probe:
        if no := not_installed(host, "grubby"):
            return no
        if host.root.exists(ostree.BOOTED) or following is None or following.loader != "GRUB":
            who = following.loader if following else "no boot loader that nestd knows"
            if host.root.exists(ostree.BOOTED):
                who = "a deployment of ostree, which writes the entries anew,"
            return Probe.no(f"{who} boots this system, not GRUB alone")
        if following.doubt:
            return Probe.unsure(f"grubby is installed, and what GRUB boots cannot be told: {following.doubt}")
        if not following.source.startswith(f"{ENTRIES}/"):
            return Probe.no(
                f"GRUB takes the arguments from {following.source}, which is no boot loader entry"
            )
        for path, text in _texts(host.root).items():
            if path.startswith(ENTRIES) and "$kernelopts" in words(entries.options(text)):
                return Probe.no(
                    f"{path} says $kernelopts, as RHEL 8 has it (by hand: "
                    "`grubby --update-kernel=ALL --args=...`)"
                )
        return Probe.fits(f"grubby is installed, and GRUB boots {following.source}")

    async def steps(self, host: Host, own: Own, wanted: Edit) -> tuple[tuple[Step, ...], Own]:
        now, own = _texts(host.root), mine(own, self.name)
        then = entries.target(now, own, wanted, _seed(host.root))
        todo: list[Step] = []
        for one, paths in _kernels(now).items():
            changes = {path: (now[path], then.texts[path] or "") for path in paths}
            todo += _of_kernel(host.root, one, changes)
        cmdline, defaults = then.texts.get(KERNEL_CMDLINE), then.texts.get(DEFAULTS)
        if cmdline != now.get(KERNEL_CMDLINE):
            todo.append(WriteFile(KERNEL_CMDLINE, cmdline, now.get(KERNEL_CMDLINE)))
        if defaults is not None and defaults != now.get(DEFAULTS):
            todo.append(_written(host.root, DEFAULTS, defaults))
        return tuple(todo), then.own

    def script(self, own: Own) -> str:
        from nestd.nesting.loaders import grubbyscript  # noqa: PLC0415 -- it imports this file

        return grubbyscript.lines(own) if own.added or own.removed else ""


def _texts(root: Root) -> dict[str, str]:
    """The entries that boot a kernel, and the two files. Raises OSError."""
    names = [f"{ENTRIES}/{name}" for name in root.files(ENTRIES) if name.endswith(".conf")]
    found = {path: root.read(path) for path in (*names, KERNEL_CMDLINE, DEFAULTS)}
    return {
        path: text
        for path, text in found.items()
        if text is not None and (not path.startswith(ENTRIES) or entries.linux(text))
    }


def _seed(root: Root) -> str:
    """The entry that is booted next; empty where that cannot be told."""
    following = bootloader.read(root)
    return following.source.rpartition(":")[0] if following and not following.doubt else ""


def _kernels(now: dict[str, str]) -> dict[str, list[str]]:
    """The paths of the entries of each kernel, by what grubby calls that."""
    found: dict[str, list[str]] = {}
    for path, text in now.items():
        if path.startswith(ENTRIES):
            found.setdefault(kernel(text), []).append(path)
    return found


def _of_kernel(root: Root, which: str, changes: dict[str, tuple[str, str]]) -> list[Step]:
    """The steps for the entries of one kernel: each path with its text now and then."""
    asked = [entries.asked_for(now, then) for now, then in changes.values()]
    add = tuple(dict.fromkeys(word for one in asked for word in one.add))
    remove = max((one.remove for one in asked), key=len)
    todo: list[Step] = []
    left = {path: now for path, (now, _) in changes.items()}
    if add or remove:
        for path, text in left.items():
            _refuse_garbled(path, text)
        todo.append(Run(asking(which, Asked(add, remove)), keeps=tuple(changes)))
        left = {path: entries.by_grubby(text, Asked(add, remove)) for path, text in left.items()}
    for path, (_, then) in changes.items():
        if left[path] != then:
            todo.append(_written(root, path, then))
    return todo


def _written(root: Root, path: str, text: str) -> Run:
    """Outside the sandbox: neither /boot nor all of /etc/default is open to nestd."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise errors.BootloaderFailed(
            f"{path} is no UTF-8, so nestd leaves it alone. Nothing was changed. Put that right, then try "
            "again."
        ) from None
    line = entries.line(path, text)
    return Run(
        ("sh", "-c", _WRITE, "nestd", root.path(path), text), keeps=(path,), words=f"write {path}: {line}"
    )


def asking(which: str, asked: Asked) -> tuple[str, ...]:
    """The command that changes a kernel's arguments."""
    add, remove = " ".join(asked.add), " ".join(asked.remove)
    return (
        "grubby",
        f"--update-kernel={which}",
        *([f"--args={add}"] if add else []),
        *([f"--remove-args={remove}"] if remove else []),
    )


def _refuse_garbled(path: str, text: str) -> None:
    line = entries.options(text)
    lines = sum(row.startswith("options") for row in text.split("\n"))
    if lines == 1 and not any(mark in line for mark in _GARBLED):
        return
    why = "several lines that begin with options" if lines > 1 else "an & or a \\ among its arguments"
    raise errors.BootloaderFailed(
        f"{path} has {why}, which grubby would garble. Nothing was changed. Write them in one line without "
        "it, then try again."
    )


def kernel(text: str) -> str:
    """What grubby calls an entry's kernel.

    Where /boot is a file system of its own GRUB's path is below that; grubby sees to it.
    """
    linux = entries.linux(text)
    return linux if linux.startswith("/boot/") else f"/boot{linux}"
