# SPDX-License-Identifier: LGPL-2.1-or-later
"""The machine itself, without nestd: the ground on which the other tests of this folder stand."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.vm.machine import Machine, is_running
from tests.vm.problem import CommandError, KernelPanicError, OutOfTimeError, VmError

_TREE = Path(__file__).parents[2]
_NESTED = "/sys/module/kvm_amd/parameters/nested"


def _reload(machine: Machine, nested: int) -> None:
    machine.sh(f"modprobe -r kvm_amd; modprobe kvm_amd nested={nested}")
    assert machine.text(_NESTED).strip() == str(nested)


# -- the system ------------------------------------------------------------------------------------


def test_systemd_runs_without_a_failed_unit(bare: Machine) -> None:
    assert bare.out("systemctl", "is-system-running") == "running"
    assert bare.out("systemctl", "--failed", "--no-legend") == ""


def test_the_users_are_there(bare: Machine) -> None:
    for user in ("alice", "bob", "nobody"):
        result = bare.run(["id", "--user", "--name"], user=user)
        assert result.stdout.strip() == user
    assert bare.out("pwd", user="alice") == "/home/alice"
    assert bare.run(["cat", "/etc/shadow"], user="alice", check=False).code == 1


def test_polkit_answers_on_the_system_bus(bare: Machine) -> None:
    assert "org.freedesktop.systemd1.manage-units" in bare.run(["pkaction"]).stdout
    denied = bare.run(
        ["busctl", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1",
         "org.freedesktop.systemd1.Manager", "StopUnit", "ss", "cron.service", "fail"],
        user="alice", check=False,
    )  # fmt: skip
    assert denied.code == 1
    assert "authoriz" in denied.stderr.lower() or "authentication" in denied.stderr.lower()


# -- kvm_amd ---------------------------------------------------------------------------------------


def test_udev_has_loaded_kvm_amd(bare: Machine) -> None:
    assert bare.text("/sys/module/kvm_amd/initstate").strip() == "live"
    assert bare.text(_NESTED).strip() == "1"


def test_kvm_amd_unloads_and_loads_with_nested_off_and_on(bare: Machine) -> None:
    _reload(bare, 0)
    _reload(bare, 1)
    bare.sh("rmmod kvm_amd; test ! -e /sys/module/kvm_amd; test -e /sys/module/kvm")


def test_an_open_device_holds_kvm_amd(bare: Machine) -> None:
    with bare.background(["bash", "-c", "exec 3<>/dev/kvm; echo open; read"]) as holder:
        holder.wait_for("open")
        refused = bare.run(["rmmod", "kvm_amd"], check=False)
        assert refused.code != 0
        assert "in use" in refused.stderr
    bare.run(["rmmod", "kvm_amd"])


def test_udev_tells_of_modules(bare: Machine) -> None:
    with bare.background(["udevadm", "monitor", "--kernel", "--udev", "--subsystem-match=module"]) as events:
        events.wait_for("KERNEL - the kernel uevent")
        time.sleep(0.3)  # it says so before it listens
        bare.run(["rmmod", "kvm_amd"])
        bare.run(["modprobe", "kvm_amd"])
        events.wait_for("add      /module/kvm_amd", 10)
        seen = events.wait_for("remove   /module/kvm_amd", 10)
    assert "KERNEL[" in seen


# -- guests in the machine -------------------------------------------------------------------------

_GUEST = [
    "qemu-system-x86_64", "-accel", "kvm", "-m", "160", "-kernel", "/boot/vmlinuz",
    "-initrd", "/usr/share/nestd-test/guest.cpio.gz", "-append", "console=ttyS0 quiet",
    "-nodefaults", "-nic", "none", "-vga", "none", "-display", "none", "-no-reboot",
]  # fmt: skip


@pytest.mark.parametrize(
    ("nested", "cpu", "expected"), [(1, "host", True), (0, "host", False), (1, "qemu64,+svm", True)]
)
def test_a_guest_sees_svm_only_with_nesting(bare: Machine, nested: int, cpu: str, expected: bool) -> None:
    _reload(bare, nested)
    with bare.background([*_GUEST, "-cpu", cpu, "-serial", "stdio"]) as guest:
        said = guest.wait_for("guest-ready", 120)
    (flags,) = [line.split() for line in said.splitlines() if line.startswith("cpuflags:")]
    assert ("svm" in flags) is expected


def test_a_guest_obeys_its_power_button(bare: Machine) -> None:
    serial = "/tmp/serial"
    guest = bare.start(
        [*_GUEST, "-cpu", "host", "-serial", f"file:{serial}", "-monitor", "stdio"], interactive=True
    )
    bare.sh(f"until grep -qs guest-ready {serial}; do sleep 0.2; done")
    guest.write("system_powerdown\n")
    assert guest.wait(30).code == 0
    assert "reboot: Power down" in bare.text(serial)


# -- commands --------------------------------------------------------------------------------------


def test_what_a_command_says_and_how_it_ends(bare: Machine) -> None:
    result = bare.run(["sh", "-c", "echo out; echo err >&2; exit 3"], check=False)
    assert (result.code, result.stdout, result.stderr) == (3, "out\n", "err\n")
    assert bare.run(["sh", "-c", "kill -9 $$"], check=False).code == -9
    assert bare.run(["cat"], stdin="given").stdout == "given"
    assert bare.run(["sh", "-c", "echo $A"], env={"A": "b c"}).stdout == "b c\n"
    with pytest.raises(CommandError, match="ended with 1"):
        bare.run(["false"])
    with pytest.raises(VmError, match="FileNotFoundError"):
        bare.run(["/no/such/command"])


def test_much_output_comes_whole(bare: Machine) -> None:
    assert bare.run(["head", "--bytes=4000000", "/dev/zero"]).stdout == "\0" * 4_000_000


def test_a_heir_of_the_output_does_not_hold_the_command(bare: Machine) -> None:
    result = bare.run(["sh", "-c", "sleep 300 & echo done"])
    assert result.stdout == "done\n"
    assert result.seconds < 30


def test_a_late_command_is_killed_with_its_children(bare: Machine) -> None:
    with pytest.raises(OutOfTimeError, match="killed after"):
        bare.run(["sh", "-c", "sleep 4711; true"], timeout=1.0)
    assert bare.run(["pgrep", "-f", "^sleep 4711"], check=False).code == 1


def test_commands_run_side_by_side(bare: Machine) -> None:
    bare.run(["mkfifo", "/tmp/fifo"])
    reader = bare.start(["cat", "/tmp/fifo"])
    bare.sh("echo through > /tmp/fifo")
    assert reader.wait(30).stdout == "through\n"


def test_files_and_trees_get_in_and_out(bare: Machine, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub/tool").write_text("#!/bin/sh\necho ran\n")
    (tree / "sub/tool").chmod(0o755)
    to = bare.push(tree, ("bytes", b"\x00\xff" * 500_000))
    assert bare.out(f"{to}/tree/sub/tool") == "ran"
    assert bare.read(f"{to}/bytes") == b"\x00\xff" * 500_000
    for size in (1, 65_000, 300_000):  # archives that end anywhere in a block
        bare.push(("some", b"x" * size))
    bare.push(("bytes", b"second"))  # over the same disk: nothing may come from a cache
    assert bare.read(f"{to}/bytes") == b"second"
    bare.write("/new/folder/secret", "s", mode=0o600, user="alice")
    assert bare.out("stat", "--format=%U %a", "/new/folder/secret") == "alice 600"


# -- snapshots and power ---------------------------------------------------------------------------


def test_a_snapshot_brings_back_disk_memory_and_modules(bare: Machine) -> None:
    bare.sh("echo before > /root/file; echo before > /run/file")
    _reload(bare, 0)
    bare.save("here")
    bare.sh("echo after > /root/file; echo after > /run/file; sync")
    _reload(bare, 1)
    bare.load("here")
    assert bare.sh("cat /root/file /run/file").stdout == "before\nbefore\n"
    assert bare.text(_NESTED).strip() == "0"


def test_the_clock_is_right_after_a_snapshot(bare: Machine) -> None:
    assert abs(float(bare.out("date", "+%s.%N")) - time.time()) < 2.0


def test_nothing_is_saved_while_a_command_runs(bare: Machine) -> None:
    with bare.background(["sleep", "60"]), pytest.raises(VmError, match="sleep 60"):
        bare.save("never")


def test_reboot_keeps_the_disk_and_gives_a_new_system(bare: Machine) -> None:
    before = bare.text("/proc/sys/kernel/random/boot_id")
    bare.sh("echo kept > /root/file; echo lost > /run/file")
    bare.reboot()
    assert bare.text("/proc/sys/kernel/random/boot_id") != before
    assert bare.text("/root/file") == "kept\n"
    with pytest.raises(VmError, match="FileNotFoundError"):
        bare.read("/run/file")


def test_power_cut_loses_what_was_not_on_the_disk(bare: Machine) -> None:
    bare.sh("echo kept > /root/synced; sync; echo lost > /root/unsynced")
    bare.power_cut()
    assert bare.text("/root/synced") == "kept\n"
    assert bare.sh("cat /root/unsynced", check=False).stdout == ""
    assert bare.out("systemctl", "is-system-running") == "running"


def test_restart_can_add_to_the_command_line(bare: Machine) -> None:
    bare.restart(append="kvm_amd.nested=0")
    assert "kvm_amd.nested=0" in bare.text("/proc/cmdline")
    assert bare.text(_NESTED).strip() == "0"
    bare.load("base")
    assert "kvm_amd.nested=0" not in bare.text("/proc/cmdline")


def test_a_panic_is_raised_at_once_and_forgotten_with_a_snapshot(bare: Machine) -> None:
    began = time.monotonic()
    with pytest.raises(KernelPanicError, match="sysrq triggered crash"):
        bare.sh("echo c > /proc/sysrq-trigger; sleep 100")
    assert time.monotonic() - began < 30
    bare.load("base")
    assert bare.out("echo", "fine") == "fine"


# -- the process on the host -----------------------------------------------------------------------

_STARTER = """
import sys, time
from tests.vm.boot import boot
with boot() as machine:
    print(machine.pid, flush=True)
    time.sleep(300)
"""


def test_qemu_dies_with_the_process_that_started_it() -> None:
    with subprocess.Popen([sys.executable, "-c", _STARTER], cwd=_TREE, stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        assert is_running(pid)
        starter.send_signal(signal.SIGKILL)
    end = time.monotonic() + 10
    while is_running(pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert not is_running(pid)


def test_a_person_gets_a_shell_and_exit_leaves_it() -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "tests.vm", "shell"]
    with subprocess.Popen(command, cwd=_TREE, stdin=theirs, stdout=theirs, stderr=theirs) as person:
        os.close(theirs)
        try:
            _read_until(ours, b"nestd-vm:~#")
            os.write(ours, b"echo $((6*7)) on $(tty)\r")
            _read_until(ours, b"42 on /dev/hvc0")
            os.write(ours, b"exit\r")
            said = _read_until(ours, None)
            assert person.wait(30) == 0, said
        finally:
            person.kill()
            os.close(ours)


def _read_until(fd: int, wanted: bytes | None, limit: float = 60.0) -> bytes:
    """Return what comes until `wanted` is in it; None: until the other side is closed."""
    said, end = b"", time.monotonic() + limit
    while time.monotonic() < end:
        if not select.select([fd], [], [], 0.2)[0]:
            continue
        try:
            piece = os.read(fd, 4096)
        except OSError:
            piece = b""
        said += piece
        if not piece or (wanted is not None and wanted in said):
            break
    assert wanted is None or wanted in said, said
    return said
