# SPDX-License-Identifier: LGPL-2.1-or-later
"""For developers: python3 -m tests.vm build | boot | shell | run COMMAND… | prune."""

from __future__ import annotations

import argparse
import sys

from tests.vm import boot, cache
from tests.vm.problem import VmError
from tests.vm.progress import to_stream


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python3 -m tests.vm", description="The emulated machine of nestd's tests."
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("build", help="fill the cache: the image, and a snapshot of it booted")
    verbs.add_parser("boot", help="boot really, not from the snapshot, and tell how it went")
    verbs.add_parser(
        "shell", help="a root shell in a machine without nestd; Ctrl-] or exit leaves and drops it"
    )
    run = verbs.add_parser("run", help="run one command in a fresh machine, as root")
    run.add_argument("command", nargs=argparse.REMAINDER)
    verbs.add_parser("prune", help="empty the cache")
    chosen = parser.parse_args()
    try:
        return _do(chosen.verb, getattr(chosen, "command", []))
    except VmError as error:
        print(f"tests.vm: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _do(verb: str, command: list[str]) -> int:
    progress = to_stream()
    if verb == "build":
        boot.prepare(progress)
        progress(f"ready in {cache.root()}")
    elif verb == "prune":
        cache.clear()
    elif verb == "boot":
        with boot.boot(progress, cold=True) as machine:
            progress(f"up: {machine.out('systemd-analyze', 'time')}")
            print(machine.out("systemd-analyze", "blame"))
    elif verb == "shell":
        with boot.boot(progress) as machine:
            progress("root's shell; Ctrl-] or exit leaves, the machine is dropped")
            machine.shell()
            print()
    else:
        with boot.boot(progress) as machine:
            result = machine.run(command, check=False)
            sys.stdout.write(result.stdout)
            sys.stderr.write(result.stderr)
            return result.code if result.code >= 0 else 128 - result.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
