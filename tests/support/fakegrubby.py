#!/usr/bin/python3 -IS
# SPDX-License-Identifier: LGPL-2.1-or-later
"""grubby --update-kernel=..., acting on the tree that it lies in (TREE/.kernel/bin/grubby).

As grubby-bls of grubby 8.40-63.el9 (RHEL 9.2) and of Fedora 38 (dist-git d6967109): update_args,
set_bls_value, update_bls_fragment, with the same regular expressions in the same order, for GRUB on x86,
without $kernelopts. Where there is nothing to do, or no such kernel, it ends with 1.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import NoReturn

TOP = Path(sys.argv[0]).parents[2]
DEFAULTS, CMDLINE = TOP / "etc/default/grub", TOP / "etc/kernel/cmdline"


def fail(words: str) -> NoReturn:
    print(words, file=sys.stderr)
    sys.exit(1)


def value(entry: Path, key: str) -> str:
    rows = [row for row in entry.read_text().splitlines() if re.match(f"{key}[ \t]", row)]
    return "\n".join(re.sub(f"^{key}[ \t]*", "", row) for row in rows)


def sed(text: str, pattern: str, new: str, *, every: bool) -> str:
    """`echo $text | sed -E s/pattern/new/`: the shell has made one blank of several."""
    return re.sub(pattern, new, " ".join(text.split()), count=0 if every else 1)


def update_args(args: str, remove: list[str], add: list[str]) -> str:
    for one in remove:
        if "=" in one:
            args = sed(args, rf"(^|\s){one}(\s|$)", " ", every=False)
        else:
            args = sed(args, rf"(^|\s){one}((\s|$)|([=][^ ]*([$]*)))", " ", every=True)
    for one in add:
        name = one.partition("=")[0]
        args = sed(args, rf"(^|\s){name}((\s|$)|([=][^ ]*([$]*)))", " ", every=True)
    return " ".join([*args.split(), *add])


def set_value(entry: Path, key: str, text: str) -> None:
    # What & and \ mean to sed is not played: nestd does not hand them over.
    new = re.sub(
        f"^{key}.*", lambda _: f"{key} {' '.join(text.split())}", entry.read_text(), flags=re.MULTILINE
    )
    replacement = entry.with_name("sedX")  # sed -i: another file
    replacement.write_text(new)
    replacement.chmod(entry.stat().st_mode & 0o777)
    replacement.rename(entry)


def update(which: str, remove: list[str], add: list[str]) -> None:
    entries = sorted((TOP / "boot/loader/entries").glob("*.conf"), reverse=True)
    before = {entry: value(entry, "options") for entry in entries}
    mounted = not any(value(entry, "linux").startswith("/boot/") for entry in entries)
    kernel = which.removeprefix("/boot") if mounted else which
    names = (kernel, "/" + which.rpartition("/")[2])
    chosen = [entry for entry in entries if which == "ALL" or value(entry, "linux") in names]
    if not chosen:
        fail(f"The param {which} is incorrect")
    if not remove and not add:
        return
    if which == "ALL" and DEFAULTS.exists():
        found = re.findall(r'^GRUB_CMDLINE_LINUX="(.*)"', DEFAULTS.read_text(), re.MULTILINE)
        if found and found[-1]:
            line = f'GRUB_CMDLINE_LINUX="{update_args(found[-1], remove, add)}"'
            DEFAULTS.write_text(
                re.sub("^GRUB_CMDLINE_LINUX.*", lambda _: line, DEFAULTS.read_text(), flags=re.MULTILINE)
            )
    for entry in chosen:
        set_value(entry, "options", update_args(before[entry], remove, add))
    if which == "ALL":
        CMDLINE.parent.mkdir(exist_ok=True)
        if not CMDLINE.exists():
            CMDLINE.write_text(before[entries[-1]] + "\n")
        CMDLINE.write_text(update_args(CMDLINE.read_text().split("\n")[0], remove, add) + "\n")


def main() -> None:
    given = {"update-kernel": "", "args": "", "remove-args": ""}
    for word in sys.argv[1:]:
        name, equals, text = word.removeprefix("--").partition("=")
        if not word.startswith("--") or name not in given or not equals:
            fail(f"grubby: unrecognized option '{word}'")
        given[name] = text
    if not given["update-kernel"]:
        fail("no action specified")
    update(given["update-kernel"], given["remove-args"].split(), given["args"].split())


if __name__ == "__main__":
    main()
