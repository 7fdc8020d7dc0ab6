# SPDX-License-Identifier: LGPL-2.1-or-later
"""For developers: python3 -m tests.vm build | boot | shell | run COMMAND… | intel | builtin | prune."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.vm import boot, builtin, cache, chains, image, intel, sources
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
    bochs = verbs.add_parser("intel", help="nestd on kvm_intel, in Bochs (minutes)")
    bochs.add_argument(
        "--captures", type=Path, metavar="FOLDER", help="keep its /proc/cpuinfo and /sys/module there"
    )
    verbs.add_parser("builtin", help="nestd on a kernel with KVM built in, which is compiled first (minutes)")
    parser.add_argument(
        "--debian", choices=(sources.BOOKWORM, sources.TRIXIE), default=sources.BOOKWORM, help="which one"
    )
    parser.add_argument(
        "--chain", choices=chains.CHAINS, help="one that boots from its disk, through this boot loader"
    )
    chosen = parser.parse_args()
    try:
        return _do(chosen)
    except VmError as error:
        print(f"tests.vm: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _do(chosen: argparse.Namespace) -> int:
    progress = to_stream()
    verb, suite = chosen.verb, chosen.debian
    if verb == "intel":
        return 0 if intel.play(progress, chosen.captures) else 1
    if verb == "builtin":
        return 0 if builtin.play(progress) else 1
    if verb == "prune":
        cache.clear()
        return 0
    built = image.ensure(progress, suite, chains.CHAINS[chosen.chain] if chosen.chain else None)
    if verb == "build":
        boot.prepare(built, progress)
        progress(f"ready in {cache.root()}")
    elif verb == "boot":
        with boot.boot(progress, cold=True, built=built) as machine:
            progress(f"up: {machine.out('systemd-analyze', 'time')}")
            print(machine.out("systemd-analyze", "blame"))
    elif verb == "shell":
        with boot.boot(progress, built=built) as machine:
            progress("root's shell; Ctrl-] or exit leaves, the machine is dropped")
            machine.shell()
            print()
    else:
        with boot.boot(progress, built=built) as machine:
            result = machine.run(chosen.command, check=False)
            sys.stdout.write(result.stdout)
            sys.stderr.write(result.stderr)
            return result.code if result.code >= 0 else 128 - result.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
