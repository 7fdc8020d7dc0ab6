# SPDX-License-Identifier: LGPL-2.1-or-later
"""What SECURITY.md promises of sandboxes, sockets and files, on a real kernel and systemd."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from tests.vm.machine import Machine
from tests.vm.test_spine import DROPIN, GUEST, call, state_of

HOSTILE = Path(__file__).with_name("hostile_qemu.py")
# Bits of linux/capability.h.
_CAPABILITIES = {"CAP_DAC_OVERRIDE": 1, "CAP_SYS_MODULE": 16, "CAP_SYS_PTRACE": 19}
_REFUSED = {"EPERM", "EACCES", "EROFS"}
# Characters that mean something to systemd, to QEMU, to JSON or to a shell.
ODD = "/home/alice/100% %h $HOME ${x} \"q\" 'a',b=c\\x20;:ü.raw"


def status_of(machine: Machine, unit: str) -> dict[str, str]:
    """/proc/PID/status of a unit's main process."""
    pid = machine.out("systemctl", "show", "-P", "MainPID", unit)
    lines = machine.text(f"/proc/{pid}/status").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def hostile(machine: Machine, *options: str) -> str:
    """Launch a guest of alice whose QEMU is hostile_qemu.py; what the one who launched it was told."""
    machine.push(("qemu", HOSTILE.read_bytes()), to="/tmp/in")
    machine.sh("chmod 755 /tmp/in/qemu; mount --bind /tmp/in/qemu /usr/bin/qemu-system-x86_64")
    refused = machine.run(["nestctl", "launch", "bad", "--user", "alice", *options], check=False, timeout=240)
    assert refused.code == 1, refused
    return refused.stderr


def test_the_daemons_sandbox(machine: Machine) -> None:
    machine.run(["systemd-analyze", "security", "--threshold=22", "nestd.service"])
    status = status_of(machine, "nestd.service")
    allowed = sum(1 << bit for bit in _CAPABILITIES.values())
    assert [int(status[x], 16) for x in ("CapBnd", "CapEff", "CapPrm")] == [allowed] * 3
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    pid = status["Pid"]
    inside = ["nsenter", "--mount", "--target", pid, "--", "/bin/sh", "-c"]
    for path in ("/run/nestd", "/var/lib/nestd", "/etc/modprobe.d", "/tmp", "/var/tmp", "/dev", "/dev/shm"):
        tried = machine.run([*inside, f"cp /bin/true {path}/x.sh && {path}/x.sh"], check=False)
        assert tried.code == 126 and "Permission denied" in tried.stderr, (path, tried)
    usr = ("/usr/x", "/usr/bin/x", "/usr/sbin/x", "/usr/lib/x", "/usr/lib/modules/x", "/usr/local/x")
    for path in (*usr, "/lib64/x", "/x", "/etc/x", "/boot/x", "/var/x", "/proc/1/oom_score_adj"):
        tried = machine.run([*inside, f"echo 0 > {path}"], check=False)
        assert tried.code != 0 and "Read-only" in tried.stderr, (path, tried)
    assert machine.run([*inside, "ls /home/*"], check=False).code != 0
    assert machine.out("systemctl", "show", "-P", "OOMPolicy", "nestd.service") == "continue"


def attempts(machine: Machine, *options: str) -> dict[str, str | int]:
    """What came of what a QEMU of alice's tries that was taken over, beside what is alice's own."""
    machine.sh("mknod /tmp/disk b 254 0; mknod /tmp/rtc c 252 0; chown alice /tmp/disk /tmp/rtc")
    machine.sh("systemd-run --quiet --uid=alice sleep 600")
    machine.sh("pgrep --uid alice sleep > /var/tmp/alice.pid; chmod 644 /var/tmp/alice.pid")
    listen = (
        "import socket, time; s = socket.socket(socket.AF_UNIX); s.bind('/tmp/alice.sock'); s.listen(5); "
        "print('listens', flush=True); time.sleep(600)"
    )
    with machine.background(["python3", "-c", listen], user="alice") as listener:
        listener.wait_for("listens", 60)
        hostile(machine, *options)
    said = machine.out("journalctl", "-u", "nestd-guest-bad.service", "-o", "cat", "--no-pager")
    return dict(json.loads(line) for line in said.splitlines() if line.startswith('["'))


def test_a_qemu_that_was_taken_over(machine: Machine) -> None:
    """It has alice's uid, and cannot do what alice can."""
    came = attempts(machine)
    done = {name for name, what in came.items() if what == "done"}
    assert done == {"open /dev/kvm", "read ~", "read /tmp"}, came
    assert came.pop("internet") == came.pop("netlink") == "EAFNOSUPPORT"
    # One vCPU; the main thread is one of them.
    assert came.pop("threads") == 1 + 128 - 1
    assert {what for name, what in came.items() if name not in done} <= _REFUSED, came


def test_a_qemu_with_a_network_that_was_taken_over(machine: Machine) -> None:
    """It reaches the network, and nobody who listens in /run or /tmp, both of which are empty for it."""
    came = attempts(machine, "--network", "user")
    done = {name for name, what in came.items() if what == "done"}
    assert done == {"open /dev/kvm", "read ~", "read /tmp", "internet"}, came
    hidden = {name for name, what in came.items() if what == "ENOENT"}
    assert hidden == {"connect", "system bus", "open /run/user", "open my device", "open my console"}, came
    assert (came.pop("netlink"), came.pop("threads")) == ("EAFNOSUPPORT", 1 + 128 - 1)
    assert {what for name, what in came.items() if name not in done | hidden} <= _REFUSED, came


def test_a_qemu_that_eats_memory(machine: Machine) -> None:
    told = hostile(machine, "--memory", "16M", "--kernel", "/boot/vmlinuz", "--append", "eat")
    assert "more memory than its unit may" in told, told
    assert machine.out("systemctl", "is-active", "nestd.service") == "active"


def test_a_guest_of_a_hostile_user(machine: Machine) -> None:
    """Odd names arrive as they are; the sockets are the owner's alone; what it puts there is refused."""
    machine.run(["truncate", "-s", "1M", ODD], user="alice")
    options = ["memory", "t", str(192 << 20), "user", "s", "alice", "kernel", "s", "/boot/vmlinuz"]
    disks = ["disks", "aa{sv}", "1", "2", "path", "s", ODD, "format", "s", "raw"]
    call(machine, "Launch", "sa{sv}", "mine", "4", *options, *disks)
    unit, folder = "nestd-guest-mine.service", "/run/nestd/guests/mine"
    # Before systemd reads the unit again: it wrote RestrictNamespaces= to it as what means none.
    machine.run(["systemd-analyze", "security", "--threshold=20", unit])
    machine.sh("systemctl daemon-reload; systemctl restart nestd.service")
    status = status_of(machine, unit)
    alice = machine.out("id", "-u", "alice")
    assert set(status["Uid"].split()) == {alice}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert {int(status[x], 16) for x in ("CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb")} == {0}
    arguments = machine.text(f"/proc/{status['Pid']}/cmdline").split("\0")
    assert json.loads(arguments[arguments.index("-blockdev") + 1])["file"]["filename"] == ODD
    assert ODD in machine.sh(f"readlink /proc/{status['Pid']}/fd/*").stdout.splitlines()
    limits = machine.sh(
        f"cat /sys/fs/cgroup/machine.slice/{unit}/memory.max /sys/fs/cgroup/machine.slice/{unit}/pids.max"
    )
    assert limits.stdout.split() == [str((192 << 20) * 9 // 8 + (512 << 20)), "129"]
    interfaces = machine.text(f"/proc/{status['Pid']}/net/dev").splitlines()[2:]
    assert [line.partition(":")[0].strip() for line in interfaces] == ["lo"]

    modes = machine.out("stat", "-c", "%n %a %u", folder, f"{folder}/qmp", f"{folder}/console")
    assert modes.splitlines() == [
        f"{folder} 700 {alice}",
        f"{folder}/qmp 700 {alice}",
        f"{folder}/console 700 {alice}",
    ]
    for name in ("qmp", "console"):
        reach = f"import socket; socket.socket(socket.AF_UNIX).connect('{folder}/{name}')"
        tried = machine.run(["python3", "-c", reach], user="bob", check=False)
        assert tried.code == 1 and "PermissionError" in tried.stderr, tried

    machine.sh(
        f"mv {folder}/console {folder}/real; ln -s /run/dbus/system_bus_socket {folder}/console", user="alice"
    )
    refused = machine.run(["nestctl", "console", "mine"], check=False, stdin="")
    assert refused.code == 1 and "not a socket of uid" in refused.stderr, refused
    machine.sh(f"rm {folder}/console; mkfifo {folder}/console", user="alice")
    refused = machine.run(["nestctl", "console", "mine"], check=False, stdin="")
    assert refused.code == 1 and "not a socket of uid" in refused.stderr, refused
    # Its own socket, on which another listens: what a descriptor that was passed on would make of it.
    serve = (
        f"import os, socket, time; s = socket.socket(socket.AF_UNIX); s.bind('{folder}/other'); s.listen(5); "
        f"os.chown('{folder}/other', {alice}, -1); os.rename('{folder}/other', '{folder}/qmp'); "
        "print('listens', flush=True); time.sleep(600)"
    )
    with machine.background(["python3", "-c", serve]) as listener:
        listener.wait_for("listens", 60)
        machine.run(["nestctl", "stop", "mine", "--timeout", "5"], timeout=120)
    said = machine.out("journalctl", "-u", "nestd.service", "-o", "cat", "--no-pager")
    assert f"{folder}/qmp is served by uid 0, not by uid {alice}" in said
    assert machine.out("nestctl", "--json", "list") == "[]"


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_planted_link_is_refused_and_named(machine: Machine, what: str) -> None:
    before = state_of(machine)
    shadow = machine.out("sha256sum", "/etc/shadow")
    machine.sh(f"rm -f {DROPIN}; ln -s /etc/shadow {DROPIN}")
    refused = machine.run(["nestctl", "disable"], check=False)
    assert refused.code == 1 and f"{DROPIN}: a symbolic link" in refused.stderr, refused
    machine.sh(f"rm {DROPIN}")

    registry = "/run/nestd/registry"
    plant = {
        "file": f"mkdir -p -m 700 {registry}; ln -s /etc/shadow {registry}/demo.json",
        "folder": f"mkdir -m 777 /tmp/theirs; rm -rf {registry}; ln -s /tmp/theirs {registry}",
    }
    machine.sh(plant[what])
    refused = machine.run(
        ["nestctl", "launch", "demo", "--memory", "192M", *shlex.split(GUEST)], check=False, timeout=240
    )
    assert refused.code == 1, refused
    assert registry in refused.stderr and "a symbolic link" in refused.stderr, refused
    machine.sh("systemctl restart nestd.service")
    assert state_of(machine) == before
    assert machine.out("sha256sum", "/etc/shadow") == shadow
    assert machine.sh("systemctl list-units --all 'nestd-guest-*' --no-legend").stdout.strip() == ""
    assert machine.sh("ls -A /tmp/theirs 2>/dev/null || true").stdout == ""
