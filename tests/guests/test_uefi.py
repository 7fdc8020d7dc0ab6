# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest with UEFI, with the real QEMU and OVMF: it boots, and writes its variables into its own copy.

Under TCG: where QEMU 7.2 emulates AMD-V itself, as for tests/vm, it aborts as soon as OVMF runs under KVM
(tcg_handle_interrupt: assertion failed), with nestd or without.
"""

from __future__ import annotations

import hashlib
import subprocess
import time
from pathlib import Path

from nestd.guestmodel import GuestSpec
from nestd.guests import firmware, prepare
from nestd.host.root import Root
from nestd.text.qemudevices import VARIABLES
from tests.support import loop
from tests.text.realqemu import monitor_of, running

_LIMIT = 300.0


def _hash(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_it_boots_and_writes_into_its_own_copy(tmp_path: Path) -> None:
    uefi = firmware.find(Root("/"))
    before = _hash(uefi.variables)
    spec = GuestSpec("demo", "alice", cpu="qemu64", memory=128 << 20, firmware="uefi")
    made = prepare.preparation(spec, uefi, str(tmp_path), lambda names: f"/usr/bin/{names[0]}")
    for command in made.commands:
        subprocess.run(command, check=True)
    copy, log = tmp_path / VARIABLES, tmp_path / "log"
    assert _hash(copy) == before

    async def go_on(process: subprocess.Popen[str]) -> None:
        async with await monitor_of(tmp_path, process) as monitor:
            await monitor.execute("cont")

    with running(tmp_path, spec, uefi) as process:
        loop.run(go_on(process))
        until = time.monotonic() + _LIMIT
        while not (log.exists() and b"BdsDxe" in log.read_bytes()):
            assert process.poll() is None and time.monotonic() < until, process.returncode
            time.sleep(0.1)
    assert _hash(copy) != before
    assert _hash(uefi.variables) == before
