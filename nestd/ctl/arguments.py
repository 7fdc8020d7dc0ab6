# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command line: what may be asked for, and how it is written."""

from __future__ import annotations

import argparse
import os
import sys

from nestd import __version__

TYPE_CHECKING = False  # as typing has it, which costs time to load
if TYPE_CHECKING:
    from _typeshed import SupportsWrite

EXIT_CODES = """\
exit codes:
  0  fine
  1  failed
  2  the command line, or what it asks for, makes no sense
  3  refused by polkit
  4  not supported on this machine
  5  in use, or busy with another change
"""

_DRY_RUN = "tell the steps and do nothing"
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_READING = ("status", "diagnose", "holders", "list", "show", "enable", "disable", "revert", "launch")
#: what the option loader of Enable and Disable takes
LOADERS = ("grub", "kernel-install", "grubby", "rpm-ostree", "ostree", "bootc")


def size(text: str) -> int:
    """Bytes from `512M`, `2G` or a plain number; the suffixes K, M, G and T are powers of 1024."""
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].isalpha() else (text, "")
    if unit not in _UNITS or not (number.isascii() and number.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write bytes, or a number with K, M, G or T")
    return _within(int(number) * _UNITS[unit], 64, text)


def count(text: str) -> int:
    """A whole number from 1 that fits the bus type u."""
    return _within(_whole(text), 32, text)


def seconds(text: str) -> int:
    """A whole number of seconds, 0 included, small enough for a day."""
    value = _whole(text)
    if value > 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is more than a day")
    return value


def word(text: str) -> str:
    """Text that D-Bus can carry."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not UTF-8, and D-Bus carries nothing else") from None
    return text


def absolute(path: str) -> str:
    """The path as the daemon must have it: from the root, whatever this process's folder is."""
    if not path:
        raise argparse.ArgumentTypeError("the path is empty")
    return os.path.join(os.getcwd(), word(path))


def disk(text: str) -> dict[str, str | bool]:
    """A disk from `path=…,format=…[,readonly][,snapshot]`; a comma in the path is written twice."""
    given: dict[str, str | bool] = {}
    for part in text.replace(",,", "\0").split(","):
        key, _, value = part.replace("\0", ",").partition("=")
        if key in ("readonly", "snapshot") and value in ("", "on", "off"):
            given[key] = value != "off"
        elif key == "path" and value:
            given[key] = absolute(value)
        elif key == "format" and value in ("raw", "qcow2"):
            given[key] = value
        else:
            raise argparse.ArgumentTypeError(
                f"{part!r} is not understood: write path=FILE,format=raw|qcow2[,readonly][,snapshot]"
            )
    if "path" not in given or "format" not in given:
        raise argparse.ArgumentTypeError("a disk needs path= and format= (raw or qcow2; it is never probed)")
    return given


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser that notices when its words cannot be written: since Python 3.12 it hides that."""

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        if message:
            (sys.stderr if file is None else file).write(message)


def parser() -> _Parser:
    """The whole command line of nestctl."""
    bus = _part()
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
            word, help=what, description=what, allow_abbrev=False, parents=[*parts, bus]
        )
        made.set_defaults(command=word)
        return made

    command("status", "tell whether guests get nesting, now and after the next boot (default)", reading)
    command("diagnose", "look at all that nesting needs, and say what is wrong and what to do", reading)
    command("holders", "tell who uses KVM, so that its driver cannot be reloaded", reading)
    for verb, what in (("enable", "turn nesting on"), ("disable", "turn nesting off, provably")):
        _change(command(verb, what, reading))
    revert = command("revert", "take back all that was set for the next boots", reading)
    revert.add_argument("--dry-run", action="store_true", help=_DRY_RUN)
    command("cancel", "forget the change that waits until nobody uses KVM")
    _launch(command("launch", "start a guest", name, reading))
    command("list", "list the guests", reading)
    command("show", "tell everything about a guest", name, reading)
    stop = command("stop", "press the guest's power button, and stop it if that does not help", name)
    stop.add_argument(
        "--timeout", metavar="S", type=seconds, help="seconds that the guest has to power off (default 30)"
    )
    command("kill", "end a guest at once", name)
    command("console", "use a guest's serial console; Ctrl-] leaves it", name)
    return top


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line understood; ends the process (2) with a usage message where it cannot be."""
    given = argparse.Namespace(command="status", bus="system", ask=True, json=False)
    if argv in ([], ["status"]):
        return given  # the commonest call, and building the parser is a good part of its time
    top = parser()
    top.parse_args(argv, given)
    if given.json and given.command not in _READING:
        top.error(f"{given.command} has no --json")
    if given.command == "launch":
        if not given.kernel and (given.initrd or given.append is not None):
            top.error("--initrd and --append need --kernel")
        if given.json and given.console:
            top.error("--json and --console exclude each other")
    return given


def _part() -> _Parser:
    # SUPPRESS: what stands before the command is not overwritten by the defaults of what stands behind it.
    return _Parser(add_help=False, argument_default=argparse.SUPPRESS)


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


def _launch(part: argparse.ArgumentParser) -> None:
    part.add_argument(
        "--cpu", metavar="M", type=word, help="host (default) or a QEMU model; the extension is added"
    )
    part.add_argument(
        "--cpu-feature",
        dest="features",
        type=word,
        metavar="FLAG",
        action="append",
        default=[],
        help="add (+) or take away (-) a CPU flag, such as --cpu-feature=-avx2 (may be repeated)",
    )
    part.add_argument("--memory", metavar="SIZE", type=size, help="such as 512M or 2G (default 512M)")
    part.add_argument("--vcpus", metavar="N", type=count, help="how many virtual CPUs (default 1)")
    part.add_argument(
        "--disk",
        dest="disks",
        metavar="DISK",
        type=disk,
        action="append",
        default=[],
        help="path=FILE,format=raw|qcow2[,readonly][,snapshot] (may be repeated)",
    )
    part.add_argument("--kernel", metavar="FILE", type=absolute, help="boot this kernel")
    part.add_argument("--initrd", metavar="FILE", type=absolute, help="its initial file system")
    part.add_argument("--append", metavar="TEXT", type=word, help="its command line")
    part.add_argument("--user", metavar="USER", type=word, help="run QEMU as this user (root only)")
    part.add_argument(
        "--allow-no-nesting", action="store_true", help="start even if the guest cannot get the extension"
    )
    part.add_argument("--console", action="store_true", help="attach to the console afterwards")


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    return int(text)


def _within(value: int, bits: int, text: str) -> int:
    if not 0 < value < 1 << bits:
        raise argparse.ArgumentTypeError(f"{text!r} is out of range")
    return value
