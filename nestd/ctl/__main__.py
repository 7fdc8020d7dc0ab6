# SPDX-License-Identifier: LGPL-2.1-or-later
"""nestctl: the command line client of nestd."""

from __future__ import annotations

import os
import signal
import sys
from argparse import Namespace
from collections.abc import Callable

from . import commands, guests
from .agent import password_agent
from .arguments import parse
from .client import Client
from .failures import FAILED, CtlError, Refused
from .screen import Screen


def _prove(given: Namespace, client: Client, screen: Screen) -> int:
    from . import proof  # noqa: PLC0415 - reading does not need it

    verbs = {"verify": proof.verify, "measure": proof.measure, "cpu": proof.cpu}
    return verbs[given.command](given, client, screen)


def _lab(given: Namespace, client: Client, screen: Screen) -> None:
    from . import labs  # noqa: PLC0415 - as above

    labs.run(given, client, screen)


COMMANDS: dict[str, Callable[[Namespace, Client, Screen], int | None]] = {
    "status": commands.status,
    "diagnose": commands.diagnose,
    "holders": commands.holders,
    "enable": commands.enable,
    "disable": commands.disable,
    "revert": commands.revert,
    "cancel": commands.cancel,
    "launch": guests.launch,
    "verify": _prove,
    "measure": _prove,
    "cpu": _prove,
    "list": guests.list_guests,
    "show": guests.show,
    "stop": guests.stop,
    "kill": guests.kill,
    "console": guests.console,
    **{f"lab {verb}": _lab for verb in ("create", "list", "show", "start", "stop", "remove")},
}
_READING = ("status", "diagnose", "holders", "list", "show", "lab list", "lab show")


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
    try:
        given = _parse(argv)
        # Reading asks nobody, and for polkit the system bus is the only one.
        asking = given.ask and given.bus == "system" and given.command not in _READING
        with Client(given.bus, os.environ, interactive=given.ask) as client, password_agent(asking) as prompt:
            screen.quiet = prompt
            return COMMANDS[given.command](given, client, screen) or 0
    except Refused as refused:
        screen.complain(refused.sentence, refused.short)
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
    try:
        return parse(argv)
    finally:
        if sys.stdout is not None:
            sys.stdout.flush()  # --help and --version: a broken pipe is noticed here, not at the very end


def _die_of(number: int) -> int:
    # A shell stops its script only if it sees that the signal ended the command.
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number


if __name__ == "__main__":
    sys.exit(main())
