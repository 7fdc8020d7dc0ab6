# SPDX-License-Identifier: LGPL-2.1-or-later
"""The kernel command line, and a module's parameter string: one quoting (lib/cmdline.c, next_arg)."""

from typing import NamedTuple

_SPACE = " \t\n\v\f\r"


class Argument(NamedTuple):
    """`name` is as written, `value` without its quotes; None where there is no `=`."""

    name: str
    value: str | None


def words(text: str) -> tuple[str, ...]:
    """The words of `text`, quotes kept: white space separates, except between double quotes.

    An opening quote that is never closed reaches to the end, as in the kernel.
    """
    found: list[str] = []
    start = -1
    quoted = False
    for position, character in enumerate(text):
        if character in _SPACE and not quoted:
            if start >= 0:
                found.append(text[start:position])
            start = -1
            continue
        if start < 0:
            start = position
        if character == '"':
            quoted = not quoted
    if start >= 0:
        found.append(text[start:])
    return tuple(found)


def argument(word: str) -> Argument:
    """One word as the kernel takes it apart.

    Quotes go away around the whole word and around the value, nowhere else.
    """
    bare = word[1:] if word.startswith('"') else word
    # The kernel looks for "=" from the second character on: "=x" is a name.
    equals = bare.find("=", 1)
    if equals < 0:
        return Argument(bare.removesuffix('"') if bare is not word else bare, None)
    value = bare[equals + 1 :]
    if value.startswith('"'):
        value = value[1:].removesuffix('"')
    elif bare is not word:
        value = value.removesuffix('"')
    return Argument(bare[:equals], value)


def parse(text: str, *, whole: bool = False) -> tuple[Argument, ...]:
    """The arguments of `text` (one /proc/cmdline), in order.

    A bare `--` ends what the kernel, and so every driver built into it, takes for itself; the
    rest is init's. modprobe does not know that and reads on (libkmod-config.c,
    kmod_config_parse_kcmdline): for a loadable module ask for the `whole` line.
    """
    found: list[Argument] = []
    for word in words(text):
        one = argument(word)
        if one == Argument("--", None) and not whole:
            break
        found.append(one)
    return tuple(found)


def parameter(arguments: tuple[Argument, ...], module: str, name: str) -> Argument | None:
    """The last argument that sets the parameter `name` of `module`, or None.

    An argument whose value is None (`kvm_intel.nested`) turns a boolean on. `-` equals `_`.
    """
    wanted = f"{module}.{name}".replace("-", "_")
    for one in reversed(arguments):
        if one.name.replace("-", "_") == wanted:
            return one
    return None
