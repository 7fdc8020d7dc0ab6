# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import json
import os
import subprocess
import sys


def test_events_overflow_and_close() -> None:
    unshare = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-Urn"]
    command = [*unshare, sys.executable, "-m", "tests.host.uevents"]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    told, overflows, some_lost, after_close = json.loads(done.stdout)
    assert told == ["add kvm", "add kvm_amd", "remove kvm_amd"]
    assert overflows == 1
    assert some_lost is True
    assert after_close == 0


def test_pyudev_is_not_imported_before_it_is_wanted() -> None:
    """Its import runs ldconfig."""
    script = "import sys, nestd.host.udev; sys.exit('pyudev' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == 0
