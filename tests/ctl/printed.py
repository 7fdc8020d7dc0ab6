# SPDX-License-Identifier: LGPL-2.1-or-later
"""What every reading command of nestctl prints with --json: of the real nestd, on several machines.

MeasureExit wants a real /dev/kvm, which no tree has: it alone is asked of the fake nestd.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.ctl.running import LIMIT, NESTCTL, TOP, Fake
from tests.daemon.village import USER, Village, village
from tests.support import fakeqemu
from tests.support.daemon import POLICY, Daemon, by_hand
from tests.support.privatebus import PrivateBus
from tests.support.probing import furnish
from tests.support.tools import Tools
from tests.support.tree import Tree

#: by command: the command line, and the document that it printed
Printed = dict[str, list[tuple[str, Any]]]
_AS = f"--user={USER}"
_REFCNT = "/sys/module/kvm_amd/refcnt"


class _Reader:
    """nestctl as root on a bus."""

    def __init__(self, bus: PrivateBus, printed: Printed) -> None:
        self._environment = bus.environment | {"PYTHONPATH": str(TOP)}
        self._printed = printed

    def __call__(self, line: str, *more: str, codes: Sequence[int] = (0,)) -> Any:
        """Run one command; `codes` are those that it may end with."""
        argv = [*line.split(), *more]
        done = subprocess.run(
            [*NESTCTL, *argv, "--json"], check=False, env=self._environment,
            capture_output=True, text=True, timeout=LIMIT,
        )  # fmt: skip
        assert done.returncode in codes, (argv, done.stdout, done.stderr)
        values = json.loads(done.stdout)
        words = 2 if argv[0] == "lab" else 1
        self._printed[" ".join(argv[:words])].append((" ".join(argv), values))
        return values

    def quietly(self, *argv: str) -> None:
        """Run one whose output is not looked at."""
        subprocess.run([*NESTCTL, *argv], check=True, env=self._environment, capture_output=True)


def everything(fake: Fake, folder: Path) -> Printed:
    """All commands, in `folder`."""
    printed: Printed = defaultdict(list)
    _guests(printed)
    for name, tree in _machines(folder).items():
        with PrivateBus(policies=[POLICY]) as bus, Daemon(bus, tree):
            nestctl = _Reader(bus, printed)
            status = nestctl("status")
            nestctl("diagnose", codes=(0, 1))
            for command in ("holders", "list", "lab list", "revert --dry-run"):
                nestctl(command)
            if name == "intel":
                assert (status["nested"], status["policy"]) == ("off", "unmanaged")
                assert nestctl("enable")["changed"] is True
                assert nestctl("status")["nested"] == "on"
                assert nestctl("revert")["changed"] is True
            else:
                assert (status["nested"], status["obstacle"]) == ("unsupported", "no-extension")
    asked = _Reader(fake.bus, printed)
    asked("measure")
    asked("measure --levels")
    (fake.folder / "without").touch()
    try:
        asked("measure --levels", codes=(4,))
    finally:
        (fake.folder / "without").unlink()
    return printed


def _machines(folder: Path) -> dict[str, Tree]:
    """Those on which only reading and changing is tried: Intel with nesting off, and no virtualization."""
    intel = Tree(folder / "intel").intel().module("kvm_intel", nested="N")
    intel.dropin("kvm.conf", "options kvm_intel nested=0\n")
    trees = {"intel": intel, "none": Tree(folder / "none").amd("fpu sse2 lm")}
    for tree in trees.values():
        tree.write("/etc/machine-id", "0" * 32 + "\n").path("/etc/modprobe.d").mkdir(exist_ok=True)
        Tools(tree)
    return trees


def _guests(printed: Printed) -> None:
    """An AMD machine with its driver, systemd and QEMU; all that happens there is watched."""
    with village() as place:
        furnish(place.tree, place.tools)
        (place.tools.folder / "cat").symlink_to("/bin/cat")  # the fake journalctl's
        nestctl = _Reader(place.bus, printed)
        with _Watch(place) as watch:
            with Daemon(place.bus, place.tree) as daemon:
                watch.begin()
                watch.until("start")
                nestctl("status")
                nestctl("diagnose", codes=(0, 1))
                assert nestctl("verify", _AS)["works"] is True
                assert nestctl("cpu", _AS)["nesting"] is True
                nestctl("launch demo", _AS, "--vnc")
                assert nestctl("show demo")["state"] == "running"
                nestctl("lab create town --nodes=1", _AS)
                nestctl("lab show town")
                assert len(nestctl("lab list")) == 1 and len(nestctl("list")) == 2
                place.manner(fakeqemu.Manner.DROPS_THE_FLAG)
                assert nestctl("verify", _AS, codes=(4,))["level"] == "L1"
                assert nestctl("cpu --cpu=EPYC", _AS, codes=(4,))["missing"] == ["svm"]
                _in_use(place, nestctl)
                nestctl.quietly("kill", "demo")
                # In the place of the one that has ended.
                nestctl.quietly("launch", "demo", _AS, "--allow-no-nesting")
                nestctl.quietly("lab", "remove", "town")
                assert nestctl("disable")["changed"] is True
                by_hand(place.tools, "rmmod", "kvm_amd")
                by_hand(place.tools, "modprobe", "kvm_amd", "nested=1")
                daemon.uevent("add", "kvm_amd")
                watch.until("drift")
            watch.until("nestd-gone")
            with Daemon(place.bus, place.tree):
                watch.until("nestd-back")
                watch.begin()  # with a guest that is there
                watch.until("start", times=2)
        printed["watch"] = [("watch", event) for event in watch.events()]


def _in_use(place: Village, nestctl: _Reader) -> None:
    """A process holds the driver, so that a change waits."""
    with subprocess.Popen(["sleep", "60"]) as holder:
        try:
            place.tree.write(_REFCNT, "1\n").process(holder.pid, "qemu", "anon_inode:kvm-vm")
            assert [row["pid"] for row in nestctl("holders")] == [holder.pid]
            assert nestctl("disable --when-idle")["pending"] is True
            assert nestctl("status")["pending-change"] == "off"
            nestctl.quietly("cancel")
        finally:
            holder.kill()
            place.tree.gone(f"/proc/{holder.pid}").replace(_REFCNT, "0\n")


class _Watch:
    """nestctl watch --json, as often as it is begun, into one file."""

    def __init__(self, place: Village) -> None:
        self._file = place.tree.top / "watched"
        self._environment = place.bus.environment | {"PYTHONPATH": str(TOP)}
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> _Watch:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running:
            process.kill()
            process.wait(LIMIT)

    def begin(self) -> None:
        """Watch from now on."""
        with self._file.open("ab") as out:
            argv = [*NESTCTL, "watch", "--json"]
            self._running.append(subprocess.Popen(argv, env=self._environment, stdout=out))

    def events(self) -> list[dict[str, Any]]:
        """What was told so far; a line is written at once."""
        return [json.loads(line) for line in self._file.read_text().splitlines()]

    def until(self, event: str, times: int = 1) -> None:
        """Wait for an event."""
        deadline = time.monotonic() + LIMIT
        while [one["event"] for one in self.events()].count(event) < times:
            assert time.monotonic() < deadline, self.events()
            time.sleep(0.05)
