# SPDX-License-Identifier: LGPL-2.1-or-later
"""The configuration of modprobe, read as libkmod reads it (modprobe.d(5), libkmod-config.c)."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from nestd.text import cmdline
from nestd.text.modules import normalize

# Of two files with one name, the one in the earlier folder counts. Debian's kmod 30 does not look
# into /usr/lib, where it is the same folder as /lib.
FOLDERS = (
    "/etc/modprobe.d",
    "/run/modprobe.d",
    "/usr/local/lib/modprobe.d",
    "/usr/lib/modprobe.d",
    "/lib/modprobe.d",
)
# Brackets that match, as libkmod's underscores() wants them.
_NAME = r"(?:[^\[\]]|\[[^\]]*\])*"
_BRACKETS_OR_DASH = r"\[[^\]]*\]|-"
_KERNEL_OPTION = re.compile(r'"?(?P<module>[^".=]*)\.(?P<parameter>[^".=]*)(?:=(?P<value>.*))?', re.DOTALL)


class Directive(NamedTuple):
    """One line: `line` is the number of its first physical line, from 1.

    `command` is what modprobe.d(5) knows, or any other word, which modprobe ignores. `module` is
    what it is about, `-` made `_` (empty where nothing follows, or a bracket does not match, and modprobe
    ignores the line). `arguments` are the words after it: of `options` the kernel's words, quotes kept; of
    `alias` the module.
    """

    line: int
    command: str
    module: str
    arguments: tuple[str, ...]


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Each line with its continuations. A backslash before anything but a newline vanishes."""
    first = number = 1
    line: list[str] = []
    characters = iter(text)
    for character in characters:
        one = character
        if one == "\\":
            one = next(characters, "")
            if one == "\n":
                number += 1
                continue
        elif one == "\n":
            yield first, "".join(line)
            line.clear()
            number += 1
            first = number
            continue
        line.append(one)
    if line:
        yield first, "".join(line)


def parse(text: str) -> tuple[Directive, ...]:
    """The directives of one file, in order. No text is an error: modprobe ignores what it does not know."""
    found: list[Directive] = []
    for number, line in _logical_lines(text):
        if line.startswith("#"):
            continue
        # libkmod's strings end at a NUL; only blanks and tabs separate its words.
        command, _, rest = line.partition("\0")[0].replace("\t", " ").lstrip(" ").partition(" ")
        module, _, rest = rest.lstrip(" ").partition(" ")
        if not command:
            continue
        if command == "options":
            arguments = cmdline.words(rest)
        else:
            arguments = tuple(word for word in rest.split(" ") if word)
        if command == "alias":
            arguments = tuple(map(normalize, arguments[:1]))
        found.append(Directive(number, command, _underscores(module), arguments))
    return tuple(found)


def _underscores(name: str) -> str:
    """A name or pattern as libkmod spells it: between brackets a `-` stays. Empty for what it refuses."""
    if "[" not in name and "]" not in name:
        return normalize(name)
    if re.fullmatch(_NAME, name) is None:
        return ""
    return re.sub(_BRACKETS_OR_DASH, lambda match: "_" if match[0] == "-" else match[0], name)


def matches(pattern: str, module: str) -> bool:
    """Whether the name of an `install` or `softdep` line, which is a glob(7) pattern, means `module`."""
    if not any(character in pattern for character in "*?["):
        return pattern == module
    from fnmatch import fnmatchcase  # noqa: PLC0415 -- hardly any line has a pattern

    return fnmatchcase(module, pattern.replace("[^", "[!"))


def command_line(text: str) -> tuple[Directive, ...]:
    """What modprobe takes from the kernel command line: `options` and `blacklist` directives, line 0.

    Not the kernel's own reading: `--` ends nothing, a quote only begins a word or stands in a value, a value
    whose quote is never closed is no option, and the names of modprobe.blacklist= are taken as they
    are, `-` and all (libkmod-config.c, kmod_config_parse_kcmdline).
    """
    found: list[Directive] = []
    for word in cmdline.words(text):
        option = _KERNEL_OPTION.fullmatch(word)
        if option is None or word.count('"') % 2:
            continue
        module, parameter, value = option["module"], option["parameter"], option["value"]
        if word.startswith('"') and value is None:
            continue
        if module == "modprobe" and parameter == "blacklist" and value is not None:
            found += [Directive(0, "blacklist", name, ()) for name in value.rstrip('"').split(",")]
        elif name := _underscores(module):
            # A quote before the whole word moves before the value, which it was meant for.
            quote = '"' if word.startswith('"') else ""
            argument = parameter if value is None else f"{parameter}={quote}{value}"
            found.append(Directive(0, "options", name, (argument,)))
    return tuple(found)


def setting(directive: Directive, parameter: str) -> cmdline.Argument | None:
    """What an `options` directive gives `parameter` (the last word wins), or None if it is silent."""
    if directive.command != "options":
        return None
    for one in reversed([cmdline.argument(word) for word in directive.arguments]):
        if normalize(one.name) == normalize(parameter):
            return one
    return None


def search(names: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """The files that count, as absolute paths, in the order in which modprobe reads them.

    `names` has for each of FOLDERS that exists the names of its files (`Root.files`: folders and
    dangling links hide nothing). All are sorted by name; the first folder's file of a name hides the others';
    only names that end in `.conf` and do not begin with a dot count.
    """
    chosen: dict[str, str] = {}
    for folder in FOLDERS:
        for name in names.get(folder, ()):
            if name.endswith(".conf") and not name.startswith("."):
                chosen.setdefault(name, f"{folder}/{name}")
    return tuple(chosen[name] for name in sorted(chosen, key=order))


def order(path: str) -> bytes:
    """What the files are sorted by: the bytes of the name, as strcmp does it.

    A name that is not UTF-8 arrives with surrogates.
    """
    return path.rpartition("/")[2].encode("utf-8", "surrogateescape")
