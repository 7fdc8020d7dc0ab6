# SPDX-License-Identifier: LGPL-2.1-or-later
"""nestd's command line: what systemd runs, and what a developer runs with --bus."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from nestd import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run the daemon until it is told to stop. Returns the exit code: 0 fine, 1 failed, 2 usage."""
    given = sys.argv[1:] if argv is None else argv
    bus = _bus(given) if given else "system"
    from nestd import service  # noqa: PLC0415 -- --help and --version need none of it

    return service.run(bus)


def _bus(argv: Sequence[str]) -> str:
    """What --bus says. SystemExit: --help, --version, or wrong usage."""
    import argparse  # noqa: PLC0415 -- systemd gives no arguments

    parser = argparse.ArgumentParser(
        prog="nestd",
        description="Nested virtualization (KVM) as a D-Bus service. systemd starts it; nestctl(1) and "
        "busctl(1) talk to it. Exit codes: 0 stopped as asked, 1 failed (the reason is in the journal or "
        "on stderr), 2 usage.",
    )
    parser.add_argument(
        "--bus",
        default="system",
        metavar="BUS",
        help="the bus to serve on: system (default), session, or an address such as unix:path=/run/my-bus",
    )
    parser.add_argument("--version", action="version", version=f"nestd {__version__}")
    return str(parser.parse_args(argv).bus)


if __name__ == "__main__":
    sys.exit(main())
