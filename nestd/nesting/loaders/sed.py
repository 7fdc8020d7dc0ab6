# SPDX-License-Identifier: LGPL-2.1-or-later
"""What text/arguments.py does to a line, as commands of sed -E: for shell that has to do it without nestd.

GNU's and busybox's sed have all of it. `added` knows neither of a bare `--` nor of an open quote.
"""

# No postponed annotations here: see nestd/model.py.

from collections.abc import Sequence

_SPECIAL = frozenset("\\^$.[]|()?*+{}/")
_BLANK = "[[:blank:]]"


def literal(text: str) -> str:
    """A regular expression that matches the text."""
    return "".join(f"\\{one}" if one in _SPECIAL else one for one in text)


def word(argument: str) -> str:
    """A regular expression that matches the argument; `-` equals `_` in its name."""
    name, equals, value = argument.partition("=")
    named = "".join("[-_]" if one in "-_" else literal(one) for one in name)
    return named + literal(equals + value)


def exchanged(line: str, new: str) -> str:
    """The command that makes exactly this whole line the new one."""
    replacement = "".join(f"\\{one}" if one in "\\&/" else one for one in new)
    return f"s/^{literal(line)}$/{replacement}/"


def without(arguments: Sequence[str], behind: str = "", *, single: bool = False) -> tuple[str, ...]:
    """Commands that take the arguments off a line, each with one blank; what is between quotes stays.

    `behind` is a regular expression without groups, of what stands before the command line. `single`: single
    quotes quote, too, as in GRUB's script; the kernel has double quotes alone.
    """
    quoted, plain = ("\"[^\"]*\"|'[^']*'", "[^\"']*") if single else ('"[^"]*"', '[^"]*')
    found = []
    for number, one in enumerate(arguments):
        label, regular = f"nestd{number}", word(one)
        found += [
            f":{label}",
            f"s/^({behind}){regular}({_BLANK}|$)/\\1/",
            f"t{label}",
            f"s/^({behind}({plain}({quoted}))*{plain}){_BLANK}{regular}({_BLANK}.*)?$/\\1\\4/",
            f"t{label}",
        ]
    return tuple(found)


def there(argument: str) -> str:
    """A regular expression for a line that has the argument, not between double quotes."""
    return f'^(([^"]*"[^"]*")*[^"]*{_BLANK})?{word(argument)}({_BLANK}|$)'


def added(arguments: Sequence[str]) -> tuple[str, ...]:
    """Commands that put each argument that is not there at the end of a line."""
    found = []
    for one in arguments:
        replacement = "".join(f"\\{sign}" if sign in "\\&/" else sign for sign in one)
        found.append(f"/{there(one)}/!s/{_BLANK}*$/ {replacement}&/")
    return tuple(found)
