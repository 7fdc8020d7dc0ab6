# SPDX-License-Identifier: LGPL-2.1-or-later
"""nestctl: the command line client of nestd."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from types import SimpleNamespace
from typing import cast

from .client import Client
from .failures import FAILED, CtlError, Refused
from .screen import Screen

TYPE_CHECKING = False  # as typing has it, which costs time to load
if TYPE_CHECKING:
    from argparse import Namespace

    from .bridge import Bridge

#: where each command is: starting is most of what a call costs, so that only its own module is loaded
COMMANDS = {
    **{verb: f"commands:{verb}" for verb in ("status", "diagnose", "holders", "enable", "disable")},
    **{verb: f"commands:{verb}" for verb in ("revert", "cancel")},
    "watch": "watch:watch",
    "launch": "guests:launch",
    **{verb: f"proof:{verb}" for verb in ("verify", "measure", "cpu")},
    "list": "guests:list_guests",
    **{verb: f"guests:{verb}" for verb in ("show", "stop", "kill", "console")},
    **{f"lab {verb}": "labs:run" for verb in ("create", "list", "show", "start", "stop", "remove")},
}
_READING = ("status", "diagnose", "holders", "watch", "list", "show", "lab list", "lab show")


def main(argv: list[str] | None = None) -> int:
    """Run one command. Returns the exit code; dies of SIGINT or SIGPIPE as a well-behaved tool does."""
    try:
        return _run(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        return _die_of(signal.SIGINT)
    except BrokenPipeError:
        return _die_of(signal.SIGPIPE)


def _run(argv: list[str]) -> int:
    screen = Screen(os.environ)
    place = ""
    try:
        given = _parse(argv)
        if elsewhere := given.host or given.machine:
            place = f"{elsewhere.text}: "  # what it says is about its own nestd
        module, _, name = COMMANDS[given.command].partition(":")
        command: Callable[[Namespace, Client, Screen], int | None]
        command = getattr(import_module(f".{module}", __package__), name)
        # Reading asks nobody, and for polkit the system bus of this machine is the only one.
        asking = given.ask and given.bus == "system" and given.command not in _READING
        with Client(_bus(given), os.environ, interactive=given.ask) as client, _agent(asking) as prompt:
            screen.quiet = prompt
            return command(given, client, screen) or 0
    except Refused as refused:
        screen.complain(place + refused.sentence, refused.short)
        return refused.exit_code
    except CtlError as failure:
        screen.complain(str(failure))
        return FAILED
    except BrokenPipeError:
        raise
    except OSError as error:
        screen.complain(f"standard input or output: {error.strerror or error}")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still buffered shall not fail once more
        return FAILED


def _parse(argv: list[str]) -> Namespace:
    if argv in ([], ["status"]):
        # The commonest call, and to load and build the parser is a good part of its time.
        usual = SimpleNamespace(command="status", bus="system", host=None, machine=None, ask=True, json=False)
        return cast("Namespace", usual)
    from .arguments import parse  # noqa: PLC0415 - as said

    try:
        return parse(argv)
    finally:
        if sys.stdout is not None:
            sys.stdout.flush()  # --help and --version: a broken pipe is noticed here, not at the very end


def _bus(given: Namespace) -> str | Bridge:
    """The bus that is meant; where it is on another machine, the process that leads there."""
    if given.host is None and given.machine is None:
        return str(given.bus)
    from .bridge import Bridge  # noqa: PLC0415 - seldom

    return Bridge(given.host or given.machine, os.environ)


def _agent(wanted: bool) -> AbstractContextManager[bool]:
    if not wanted:
        return nullcontext(False)
    from .agent import password_agent  # noqa: PLC0415 - reading does not need it

    return password_agent(wanted)


def _die_of(number: int) -> int:
    # A shell stops its script only if it sees that the signal ended the command.
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number


if __name__ == "__main__":
    sys.exit(main())
