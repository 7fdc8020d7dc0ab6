#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Measure nestd beside other daemons, on one private bus in one run. See README.md in this folder."""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP))

from tests.bench.load import calls_per_second  # noqa: E402
from tests.support.clients import MANAGER, NAME, PATH, PROPERTIES, Client, Message  # noqa: E402
from tests.support.daemon import POLICY  # noqa: E402
from tests.support.privatebus import PrivateBus  # noqa: E402

TUNED_POLICY = Path("/etc/dbus-1/system.d/com.redhat.tuned.conf")
IDLE = 20.0  # seconds in which wake-ups are counted
LOAD = 1.0  # seconds of load for each figure
COMMANDS = 10  # whole processes for each figure
SERVER, CLIENT = "0", (os.cpu_count() or 1) - 1  # processors


@dataclass(frozen=True, slots=True)
class Service:
    """A daemon, its name, and the calls that stand for GetAll and GetStatus there."""

    title: str
    name: str
    argv: Sequence[str]
    get_all: Message
    get_status: Message


def _get_all(name: str, path: str, interface: str) -> Message:
    return Message(name, path, PROPERTIES, "GetAll", signature="s", body=[interface])


SERVICES = (
    Service(
        "nestd", NAME, ["/usr/bin/python3", "-m", "nestd", "--bus={address}"],
        _get_all(NAME, PATH, MANAGER),
        Message(NAME, PATH, MANAGER, "GetStatus"),
    ),
    Service(
        "systemd-hostnamed (C)", "org.freedesktop.hostname1", ["/usr/lib/systemd/systemd-hostnamed"],
        _get_all("org.freedesktop.hostname1", "/org/freedesktop/hostname1", "org.freedesktop.hostname1"),
        Message("org.freedesktop.hostname1", "/org/freedesktop/hostname1",
                "org.freedesktop.hostname1", "Describe"),
    ),
    Service(
        "tuned (Python)", "com.redhat.tuned", ["/usr/sbin/tuned", "--profile", "", "--log=/dev/null"],
        Message("com.redhat.tuned", "/Tuned", "com.redhat.tuned.control", "is_running"),
        Message("com.redhat.tuned", "/Tuned", "com.redhat.tuned.control", "active_profile"),
    ),
)  # fmt: skip


@dataclass(slots=True)
class Figures:
    """What each round gave."""

    values: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def add(self, row: str, column: str, value: float) -> None:
        self.values.setdefault((row, column), []).append(value)

    def table(self, columns: dict[str, str]) -> Iterator[str]:
        """Markdown: medians. `columns` are the titles with their formats."""
        rows = list(dict.fromkeys(row for row, column in self.values if column in columns))
        yield "| | " + " | ".join(columns) + " |"
        yield "|---|" + "---|" * len(columns)
        for row in rows:
            cells = (
                format(statistics.median(self.values[row, column]), style)
                if (row, column) in self.values
                else "-"
                for column, style in columns.items()
            )
            yield f"| {row} | " + " | ".join(cells) + " |"


def uss(pid: int) -> int:
    """Memory that is this process's alone, in kB: what its end would give back."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(number) for number in re.findall(r"^Private_\w+: +(\d+) kB", text, re.MULTILINE))


def switches(pid: int) -> int:
    """Context switches of all threads so far: each wake-up ends in one."""
    texts = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
    return sum(int(number) for text in texts for number in re.findall(r"ctxt_switches:\s+(\d+)", text))


@contextmanager
def running(argv: Sequence[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process on the servers' processor, ended at the end."""
    process = subprocess.Popen(
        ["taskset", "-c", SERVER, *argv],
        env=environment, cwd=TOP, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until_owned(client: Client, name: str, process: subprocess.Popen[bytes]) -> None:
    while not client.owner_of(name):
        if process.poll() is not None:
            raise SystemExit(f"{process.args!r} has ended with {process.returncode}; is it installed?")


def measure(bus: PrivateBus, client: Client, service: Service, stack: ExitStack, out: Figures) -> int:
    """Start the service and let it run; its process."""
    argv = [word.format(address=bus.address) for word in service.argv]
    begin = time.perf_counter()
    process = stack.enter_context(running(argv, bus.environment))
    until_owned(client, service.name, process)
    out.add(service.title, "start ms", (time.perf_counter() - begin) * 1000)
    client.reply(client.send_message(service.get_all))
    time.sleep(1.0)  # what is put off until after the start belongs to the memory, too
    out.add(service.title, "USS kB", uss(process.pid))
    path = bus.address.removeprefix("unix:path=")
    for title, call in (("GetAll/s", service.get_all), ("GetStatus/s", service.get_status)):
        for clients in (1, 16):
            out.add(service.title, f"{title}, {clients}", calls_per_second(path, call, clients, LOAD))
    out.add(service.title, "USS kB after load", uss(process.pid))
    return process.pid


def idle(pids: dict[str, int], out: Figures) -> None:
    """All of them are left alone at the same time."""
    time.sleep(2.0)
    before = {title: switches(pid) for title, pid in pids.items()}
    time.sleep(IDLE)
    for title, pid in pids.items():
        out.add(title, "wake-ups in 20 s", switches(pid) - before[title])


def commands(bus: PrivateBus, out: Figures) -> None:
    """Whole processes, from fork to exit."""
    tools = {
        "nestctl status": ["/usr/bin/python3", "-c", "from nestd.ctl.__main__ import main; main(['status'])"],
        "powerprofilesctl get": ["/usr/bin/powerprofilesctl", "get"],
        "busctl get-property": ["busctl", "get-property", NAME, PATH, MANAGER, "Nested"],
        "python3 -I -S -c pass": ["/usr/bin/python3", "-I", "-S", "-c", "pass"],
    }  # fmt: skip
    environment = bus.environment
    for title, argv in tools.items():
        for _ in range(COMMANDS):
            begin = time.perf_counter()
            done = subprocess.run(argv, env=environment, cwd=TOP, capture_output=True, check=False)
            out.add(title, "ms", (time.perf_counter() - begin) * 1000)
            if done.returncode:
                raise SystemExit(f"{title} failed: {done.stderr.decode()}")


def one_round(out: Figures) -> None:
    """One private bus, all services on it, then the commands."""
    policies = [POLICY, TUNED_POLICY]
    with PrivateBus(policies=policies) as bus, ExitStack() as stack, Client(bus.address) as client:
        bus.complaints_expected = True
        polkit = stack.enter_context(running(["/usr/lib/polkit-1/polkitd", "--no-debug"], bus.environment))
        until_owned(client, "org.freedesktop.PolicyKit1", polkit)
        pids = {service.title: measure(bus, client, service, stack, out) for service in SERVICES}
        idle(pids, out)
        profiles = stack.enter_context(running(["/usr/libexec/power-profiles-daemon"], bus.environment))
        until_owned(client, "net.hadess.PowerProfiles", profiles)
        commands(bus, out)


def main() -> None:
    """Five rounds, medians, two tables in markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    subprocess.run(["/usr/bin/python3", "-m", "compileall", "-q", "nestd"], cwd=TOP, check=True)
    os.sched_setaffinity(0, {CLIENT})
    out = Figures()
    for number in range(arguments.rounds):
        print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
        one_round(out)
    calls = {f"{title}, {clients}": ",.0f" for title in ("GetAll/s", "GetStatus/s") for clients in (1, 16)}
    memory = {"USS kB": ",.0f", "USS kB after load": ",.0f"}
    columns = {"start ms": ".1f", **memory, **calls, "wake-ups in 20 s": ".0f"}
    print(*out.table(columns), "", *out.table({"ms": ".1f"}), sep="\n")


if __name__ == "__main__":
    main()
