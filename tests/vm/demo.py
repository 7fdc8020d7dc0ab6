# SPDX-License-Identifier: LGPL-2.1-or-later
"""The main job, shown to a person: nestd in the emulated machine, from status to a nested guest."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.vm import package, scenes
from tests.vm.boot import boot
from tests.vm.problem import VmError
from tests.vm.progress import to_stream
from tests.vm.scenes import Scene

_GUEST = "--kernel /boot/vmlinuz --initrd /usr/share/nestd-test/guest.cpio.gz --append 'console=ttyS0 quiet'"

_STORY = (
    Scene("What is true now", "nestctl status", ("kvm_amd",)),
    Scene(
        "Turn nesting off: the drop-in is written, the driver reloaded, all of it read back",
        "nestctl disable",
        ("off",),
    ),
    Scene("The kernel agrees", "cat /sys/module/kvm_amd/parameters/nested", ("0",)),
    Scene("A guest that needs nesting is refused now", f"! nestctl launch demo {_GUEST}", ("nest",)),
    Scene("Turn it on again", "nestctl enable", ("on",)),
    Scene(
        "From a script, with busctl",
        "busctl get-property org.nestd1 /org/nestd1 org.nestd1.Manager Nested",
        ('"on"',),
    ),
    Scene(
        "Launch a guest: a unit of its own, as an unprivileged user",
        f"nestctl launch demo {_GUEST}",
        ("svm",),
    ),
    Scene(
        "The guest's own word, from its serial console: svm is among its CPU's flags",
        "timeout 200 nestctl console demo < /dev/null | grep -m1 -a '^cpuflags:' | grep -wo 'svm'",
        ("svm",),
    ),
    Scene("While it runs, the driver is in use, and nestd says by whom", "! nestctl disable", ("demo",)),
    Scene("Stop it with its power button", "nestctl list; nestctl stop demo", ("demo",)),
)


def main() -> int:
    """Build, boot, show. Exit codes: 0 all was as it must be, 1 it was not, 2 usage."""
    parser = argparse.ArgumentParser(
        prog="packaging/try",
        description="Build nestd's package, boot a Debian with emulated AMD-V, install the package in it, "
        "and show the main job.",
    )
    parser.add_argument(
        "--shell", action="store_true", help="then stay at a root shell in the machine (Ctrl-] leaves)"
    )
    options = parser.parse_args()
    progress = to_stream()
    try:
        progress("building the package (packaging/build-deb)")
        deb: Path = package.build()
        with boot(progress) as machine:
            progress(f"installing {deb.name} in the machine")
            package.install(machine, deb)
            progress("ready")
            fine = scenes.play(machine, _STORY, scenes.to_stdout)
            if fine:
                print("\nAll of it ran in an emulated machine; this host was not touched.", flush=True)
            if options.shell:
                print("\nA root shell in the machine; Ctrl-] leaves, and the machine is gone.", flush=True)
                machine.shell()
    except VmError as error:
        print(f"packaging/try: {error}", file=sys.stderr)
        return 1
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
