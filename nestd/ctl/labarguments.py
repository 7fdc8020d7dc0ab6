# SPDX-License-Identifier: LGPL-2.1-or-later
"""The commands of `nestctl lab`, and their options."""

from __future__ import annotations

import argparse

from . import launcharguments
from .argumenttypes import count, seconds, word

_SAME = "; %n, %i, %a and %l in --append and --user-data are the node's name, number, address and the lab"


def add(
    part: argparse.ArgumentParser, bus: argparse.ArgumentParser, reading: argparse.ArgumentParser
) -> None:
    """Give the parser of `lab` its commands; `bus` and `reading` are what commands have in common."""
    commands = part.add_subparsers(metavar="COMMAND", title="commands", required=True)

    def command(verb: str, what: str, *parts: argparse.ArgumentParser) -> argparse.ArgumentParser:
        made = commands.add_parser(
            verb, help=what, description=what, allow_abbrev=False, parents=[*parts, bus]
        )
        made.set_defaults(command=f"lab {verb}")
        return made

    def named(verb: str, what: str, *parts: argparse.ArgumentParser) -> argparse.ArgumentParser:
        made = command(verb, what, *parts)
        made.add_argument("name", metavar="LAB", type=word, help="the lab's name")
        return made

    create = named("create", "make guests on a network of their own, and start them", reading)
    create.description = f"{create.description}{_SAME}"
    create.add_argument("--nodes", metavar="N", type=count, help="how many guests, 1 to 16 (default 2)")
    create.add_argument(
        "--subnet", metavar="SUBNET", type=word, help="their IPv4 addresses (default 10.77.0.0/24)"
    )
    launcharguments.add_guest(create)
    create.set_defaults(network=None, forwards=[])
    command("list", "list the labs", reading)
    named("show", "tell everything about a lab", reading)
    named("start", "start the guests of a lab that do not run")
    stop = named("stop", "press the power buttons of a lab's guests, and stop those that this does not help")
    stop.add_argument(
        "--timeout", metavar="S", type=seconds, help="seconds that they have to power off (default 30)"
    )
    named("remove", "end a lab's guests at once, and forget the lab with its own disks")
