# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command line: what may be asked for, and how it is written."""

from __future__ import annotations

import argparse
import os
import sys

from nestd import __version__

from . import examples, labarguments, launcharguments, proofarguments
from .argumenttypes import key, seconds, word
from .elsewhere import host, machine

TYPE_CHECKING = False  # as typing has it, which costs time to load
if TYPE_CHECKING:
    from _typeshed import SupportsWrite

EXIT_CODES = """\
exit codes:
  0  fine
  1  failed
  2  the command line, or what it asks for, makes no sense
  3  refused by polkit
  4  not supported on this machine, or nesting does not work here
  5  in use, or busy with another change
"""

_DRY_RUN = "tell the steps and do nothing"
_READING = (
    *("status", "diagnose", "holders", "watch", "list", "show", "enable", "disable", "revert", "launch"),
    *("verify", "measure", "cpu", "lab create", "lab list", "lab show"),
)
#: what the option loader of Enable and Disable takes
LOADERS = ("grub", "kernel-install", "grubby", "rpm-ostree", "ostree", "bootc")


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser that notices when its words cannot be written: since Python 3.12 it hides that."""

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        if message:
            (sys.stderr if file is None else file).write(message)


def parser() -> _Parser:
    """The whole command line of nestctl."""
    bus = _part()
    bus.add_argument(
        "-H",
        "--host",
        metavar="[USER@]HOST",
        type=host,
        help="do it on another machine, over ssh; HOST may have a :PORT and a /MACHINE behind it",
    )
    bus.add_argument(
        "-M", "--machine", metavar="[USER@]NAME", type=machine, help="do it in a local container or machine"
    )
    bus.add_argument("--bus", metavar="BUS", help="system (default), session, or an address; for developers")
    bus.add_argument(
        "--no-ask-password",
        dest="ask",
        action="store_false",
        help="never ask for a password: be refused instead",
    )
    reading = _part()
    reading.add_argument("--json", action="store_true", help="print JSON")
    name = _part()
    name.add_argument("name", metavar="NAME", type=word, help="the guest's name")

    top = _Parser(
        prog="nestctl",
        description="See and change nested virtualization on this machine, and run guests that use it.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        parents=[bus, reading],
    )
    top.add_argument("--version", action="version", version=f"nestctl {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", title="commands", prog="nestctl")

    def command(word: str, what: str, *parts: _Parser) -> _Parser:
        made = commands.add_parser(
            word,
            help=what,
            description=what,
            epilog=examples.of(word).replace("%", "%%"),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            parents=[*parts, bus],
        )
        made.set_defaults(command=word)
        return made

    command("status", "tell whether guests get nesting, now and after the next boot (default)", reading)
    command("diagnose", "look at all that nesting needs, and say what is wrong and what to do", reading)
    command("holders", "tell who uses KVM, so that its driver cannot be reloaded", reading)
    command("watch", "tell what happens, a line each, until Ctrl-C", reading)
    for verb, what in (("enable", "turn nesting on"), ("disable", "turn nesting off, provably")):
        _change(command(verb, what, reading))
    revert = command("revert", "take back all that was set for the next boots", reading)
    revert.add_argument("--dry-run", action="store_true", help=_DRY_RUN)
    command("cancel", "forget the change that waits until nobody uses KVM")
    launch = command("launch", "start a guest", name, reading)
    launcharguments.add(launch)
    _escape(launch)
    proofarguments.add_verify(
        command("verify", "prove that nesting works here, in a guest of a guest", reading)
    )
    proofarguments.add_measure(command("measure", "tell what virtualization costs on this machine", reading))
    proofarguments.add_cpu_forms(
        command("cpu", "print a CPU that can nest, for QEMU and for libvirt", reading)
    )
    command("list", "list the guests", reading).add_argument(
        "--all", action="store_true", help="also those that have ended in the last minutes"
    )
    command("show", "tell everything about a guest", name, reading)
    stop = command("stop", "press the guest's power button, and stop it if that does not help", name)
    stop.add_argument(
        "--timeout", metavar="S", type=seconds, help="seconds that the guest has to power off (default 30)"
    )
    command("kill", "end a guest at once", name)
    _escape(command("console", "use a guest's serial console; Ctrl-] leaves it", name))
    labarguments.add(command("lab", "have guests on a network of their own"), bus, reading)
    return top


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line understood; ends the process (2) with a usage message where it cannot be."""
    given = argparse.Namespace(command="status", bus=None, host=None, machine=None, ask=True, json=False)
    top = parser()
    top.parse_args(argv, given)
    if sum(place is not None for place in (given.bus, given.host, given.machine)) > 1:
        top.error("--host, --machine and --bus exclude each other")
    elsewhere = given.host is not None or given.machine is not None
    if given.bus is None:
        given.bus = "elsewhere" if elsewhere else "system"
    if given.json and given.command not in _READING:
        top.error(f"{given.command} has no --json")
    starts = given.command in ("launch", "lab create")
    if starts:
        _make_absolute(given, top, elsewhere)
    if starts and not given.kernel and (given.initrd or given.append is not None):
        top.error("--initrd and --append need --kernel")
    if given.command == "launch":
        if given.json and given.console:
            top.error("--json and --console exclude each other")
        if given.forwards and given.network not in (None, {"kind": "user"}):
            top.error("--forward needs --network=user, which is the default with it")
    if given.host and (given.command == "console" or getattr(given, "console", False)):
        alone = "launch it without --console, then " if given.command == "launch" else ""
        command = given.host.typed("nestctl", "console", given.name)
        top.error(f"a console does not go through ssh's bus: {alone}type {command}")
    return given


def _make_absolute(given: argparse.Namespace, top: _Parser, elsewhere: bool) -> None:
    """Make each path as the daemon must have it: from the root, whatever this process's folder is."""

    def absolute(path: str) -> str:
        if path.startswith("/"):
            return path
        if elsewhere:
            top.error(f"{path}: what it is relative to is not on that machine: write it from the root, /...")
        try:
            return word(os.path.join(os.getcwd(), path))
        except FileNotFoundError:
            top.error(f"{path}: the folder that it is relative to is gone: write it from the root, /...")
        except argparse.ArgumentTypeError as failure:
            top.error(str(failure))

    for one in ("cdrom", "kernel", "initrd"):
        if path := getattr(given, one):
            setattr(given, one, absolute(path))
    for each in given.disks:
        each["path"] = absolute(each["path"])


def _part() -> _Parser:
    # SUPPRESS: what stands before the command is not overwritten by the defaults of what stands behind it.
    return _Parser(add_help=False, argument_default=argparse.SUPPRESS)


def _escape(part: argparse.ArgumentParser) -> None:
    part.add_argument(
        "--escape", metavar="KEY", type=key, help="the key that leaves the console, such as ^A (default ^])"
    )


def _change(part: argparse.ArgumentParser) -> None:
    scope = part.add_mutually_exclusive_group()
    scope.add_argument(
        "--scope", choices=("both", "runtime", "boot"), default="both", help="what to change (default both)"
    )
    for name, what in (("runtime", "the running kernel only"), ("boot", "the configuration only")):
        scope.add_argument(f"--{name}", dest="scope", action="store_const", const=name, help=what)
    part.add_argument(
        "--when-idle", action="store_true", help="if KVM is in use, do it as soon as nobody uses it any more"
    )
    part.add_argument(
        "--replace",
        action="store_true",
        help="take away what others put on the kernel command line and that says otherwise",
    )
    part.add_argument(
        "--loader", choices=LOADERS, default="", help="who writes the kernel command line, if not found out"
    )
    part.add_argument("--dry-run", action="store_true", help=_DRY_RUN)
