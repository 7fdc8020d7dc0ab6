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

from tests.bench.load import calls_per_second, crowd  # noqa: E402
from tests.bench.services import SERVICES, Service  # noqa: E402
from tests.bench.uevent import latencies  # noqa: E402
from tests.support.clients import MANAGER, NAME, PATH, Client  # noqa: E402
from tests.support.daemon import POLICY  # noqa: E402
from tests.support.privatebus import PrivateBus  # noqa: E402

TUNED_POLICY = Path("/etc/dbus-1/system.d/com.redhat.tuned.conf")
IDLE = 20.0  # seconds in which wake-ups are counted
LOAD = 1.0  # seconds of load for each figure
CROWD = 50_000  # calls of 8 clients with 32 under way each
UEVENTS = 20
COMMANDS = 10  # whole processes for each figure
SERVER, CLIENT = "0", (os.cpu_count() or 1) - 1  # processors


@dataclass(slots=True)
class Figures:
    """What each round gave."""

    values: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def add(self, row: str, column: str, value: float) -> None:
        self.values.setdefault((row, column), []).append(value)

    def median(self, row: str, column: str) -> float:
        return statistics.median(self.values[row, column])

    def table(self, columns: dict[str, str]) -> Iterator[str]:
        """Markdown: medians. `columns` are the titles with their formats."""
        rows = list(dict.fromkeys(row for row, column in self.values if column in columns))
        yield "| | " + " | ".join(columns) + " |"
        yield "|---|" + "---|" * len(columns)
        for row in rows:
            cells = (
                format(self.median(row, column), style) if (row, column) in self.values else "-"
                for column, style in columns.items()
            )
            yield f"| {row} | " + " | ".join(cells) + " |"


def uss(pid: int) -> int:
    """Memory that is this process's alone, in kB: what its end would give back."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(number) for number in re.findall(r"^Private_\w+: +(\d+) kB", text, re.MULTILINE))


def switches(pid: int) -> dict[str, int]:
    """Context switches of each thread so far: each wake-up ends in one."""
    texts = {path.parent.name: path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")}
    pattern = r"ctxt_switches:\s+(\d+)"
    return {thread: sum(map(int, re.findall(pattern, text))) for thread, text in texts.items()}


def processor_ms(pid: int) -> float:
    """Milliseconds on the processor: its threads', and (in steps of 10) those of children that have ended."""
    running = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = int(fields[13]) + int(fields[14])
    return sum(int(text.split()[0]) / 1e6 for text in running) + children * 1000 / os.sysconf("SC_CLK_TCK")


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
    begin = time.perf_counter()
    process = stack.enter_context(running(service.argv, bus.environment))
    until_owned(client, service.name, process)
    out.add(service.title, "start ms", (time.perf_counter() - begin) * 1000)
    out.add(service.title, "start CPU ms", processor_ms(process.pid))
    client.reply(client.send_message(service.get_all))
    time.sleep(1.0)  # what is put off until after the start belongs to the memory, too
    out.add(service.title, "USS kB", uss(process.pid))
    path = bus.address.removeprefix("unix:path=")
    for title, call in (("GetAll/s", service.get_all), ("GetStatus/s", service.get_status)):
        for clients in (1, 16):
            rate = calls_per_second(path, call, clients, LOAD)
            out.add(service.title, f"{title}, {clients}", rate.per_second)
            out.add(service.title, f"{title[:-2]} p99 µs, {clients}", rate.p99)
    out.add(service.title, "USS kB after load", uss(process.pid))
    return process.pid


def idle(pids: dict[str, int], out: Figures) -> None:
    """All of them are left alone at the same time."""
    time.sleep(2.0)
    before = {title: switches(pid) for title, pid in pids.items()}
    time.sleep(IDLE)
    for title, pid in pids.items():
        woken = [count - before[title].get(thread, 0) for thread, count in switches(pid).items()]
        out.add(title, "wake-ups in 20 s", sum(woken))


def crowded(bus: PrivateBus, pid: int, out: Figures) -> None:
    """Many calls of nestd at once: a lost one, or an error, ends the benchmark."""
    before = uss(pid)
    begin = time.perf_counter()
    path = bus.address.removeprefix("unix:path=")
    answered = crowd(path, SERVICES[0].get_all, clients=8, in_flight=32, total=CROWD)
    out.add("50,000 calls, 8 clients, 32 in flight: lost", "nestd", CROWD - len(answered))
    out.add("the same: calls/s", "nestd", CROWD / (time.perf_counter() - begin))
    out.add("the same: USS after it, kB more than before", "nestd", uss(pid) - before)


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
        crowded(bus, pids[SERVICES[0].title], out)
        for seconds in latencies(UEVENTS):
            out.add("uevent to PropertiesChanged at a client, ms", "nestd", seconds * 1000)
        profiles = stack.enter_context(running(["/usr/libexec/power-profiles-daemon"], bus.environment))
        until_owned(client, "net.hadess.PowerProfiles", profiles)
        commands(bus, out)


def goals(out: Figures) -> Iterator[str]:
    """Markdown: the medians of nestd as ratios to others, and what they ought to be."""

    def ratio(row: str, column: str, peer: str) -> float:
        return out.median(row, column) / out.median(peer, column)

    hostnamed, tuned, firewalld = SERVICES[1].title, SERVICES[3].title, SERVICES[4].title
    nestd = SERVICES[0].title
    yield from ("| figure | goal | is |", "|---|---|---|")
    yield f"| start / tuned's | at most 0.6 | {ratio(nestd, 'start ms', tuned):.2f} |"
    yield f"| start / firewalld's | at most 0.5 | {ratio(nestd, 'start ms', firewalld):.2f} |"
    yield f"| start CPU / tuned's | | {ratio(nestd, 'start CPU ms', tuned):.2f} |"
    yield f"| start CPU / firewalld's | | {ratio(nestd, 'start CPU ms', firewalld):.2f} |"
    yield f"| USS / tuned's | at most 0.6 | {ratio(nestd, 'USS kB', tuned):.2f} |"
    for title in ("GetAll", "GetStatus"):
        for clients in (1, 16):
            rate = ratio(nestd, f"{title}/s, {clients}", hostnamed)
            yield f"| {title}, {clients} clients: rate / hostnamed's | at least 1 | {rate:.2f} |"
            p99 = ratio(nestd, f"{title} p99 µs, {clients}", hostnamed)
            yield f"| {title}, {clients} clients: p99 / hostnamed's | at most 1 | {p99:.2f} |"
    yield f"| wake-ups in 20 idle seconds | 0 | {out.median(nestd, 'wake-ups in 20 s'):.0f} |"
    uevent = out.median("uevent to PropertiesChanged at a client, ms", "nestd")
    yield f"| uevent to PropertiesChanged | at most 5 ms | {uevent:.1f} ms |"
    status = ratio("nestctl status", "ms", "powerprofilesctl get")
    yield f"| nestctl status / powerprofilesctl get | at most 0.8 | {status:.2f} |"


def main() -> None:
    """Five rounds, medians, tables in markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    subprocess.run(["/usr/bin/python3", "-m", "compileall", "-q", "nestd"], cwd=TOP, check=True)
    os.sched_setaffinity(0, {CLIENT})
    out = Figures()
    for number in range(arguments.rounds):
        print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
        one_round(out)
    memory = {"USS kB": ",.0f", "USS kB after load": ",.0f"}
    columns = {"start ms": ".1f", "start CPU ms": ".1f", **memory, "wake-ups in 20 s": ".0f"}
    print(*out.table(columns), "", sep="\n")
    for title in ("GetAll", "GetStatus"):
        rates = {f"{title}/s, {clients}": ",.0f" for clients in (1, 16)}
        print(*out.table(rates | {f"{title} p99 µs, {clients}": ",.0f" for clients in (1, 16)}), "", sep="\n")
    print(*out.table({"nestd": ",.1f"}), "", *out.table({"ms": ".1f"}), "", *goals(out), sep="\n")


if __name__ == "__main__":
    main()
