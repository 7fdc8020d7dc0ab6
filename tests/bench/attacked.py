#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""How long another client waits for the status while nestd is attacked. See README.md in this folder."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP))

from tests.attacks import bystander  # noqa: E402
from tests.attacks.attacks import ATTACKS  # noqa: E402
from tests.attacks.machine import busy  # noqa: E402
from tests.support.clients import ALICE, Client  # noqa: E402
from tests.support.daemon import POLICY, Daemon  # noqa: E402
from tests.support.privatebus import Kind, PrivateBus  # noqa: E402

IDLE = 200  # calls while nobody attacks
FLOOD = 8.0  # seconds
LIMIT = 60.0  # seconds that a call may take


def waits(kind: Kind, names: Sequence[str]) -> dict[str, list[float]]:
    """The seconds of each call during each attack, and before the first one under the empty name."""
    with tempfile.TemporaryDirectory(prefix="nestd-attacked-") as folder:
        Path(folder).chmod(0o755)
        with PrivateBus(policies=[POLICY], kind=kind) as bus:
            bus.complaints_expected = True
            with Daemon(bus, busy(Path(folder) / "machine")), Client(bus.address, ALICE) as client:
                bystander.ask(client)
                found = {"": [bystander.ask(client) for _ in range(IDLE)]}
                for name in names:
                    print(f"{kind}: {name}", file=sys.stderr)
                    found[name] = bystander.attacked(bus, client, name, FLOOD, LIMIT).took
                    bystander.ask(client, LIMIT)  # what is left of it is answered before the next
                return found


def main() -> None:
    """Each attack once on each bus; a table in markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("attacks", nargs="*", default=list(ATTACKS), metavar="ATTACK")
    names = parser.parse_args().attacks
    found = {kind: waits(kind, names) for kind in Kind}
    print("| | " + " | ".join(f"{kind}: median | worst" for kind in Kind) + " |")
    print("|---|" + "---|" * 2 * len(Kind))
    for name in ("", *names):
        cells = []
        for kind in Kind:
            idle = statistics.median(found[kind][""])
            for wait in (statistics.median(found[kind][name]), max(found[kind][name])):
                cells.append(f"{wait / idle:.1f} ({wait * 1000:.1f} ms)")
        print(f"| {name.replace('_', ' ') or 'idle'} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
