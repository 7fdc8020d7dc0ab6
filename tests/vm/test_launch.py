# SPDX-License-Identifier: LGPL-2.1-or-later
"""Launch's options on a real kernel and systemd, each as it is seen from inside the guest or beside it."""

from __future__ import annotations

import base64
import json
import re
import shlex
import time

import pytest

from tests.vm.machine import Machine
from tests.vm.test_guests import show
from tests.vm.test_spine import ALLOW

FOLDER = "/run/nestd/guests/demo"
USER_DATA = "#cloud-config\nusers: [{name: me}]\n"
# A guest that tells what is on its first disk, and greets whoever comes to its port 22.
INIT = """#!/bin/busybox sh
export PATH=/bin
/bin/busybox mkdir -p /proc /sys /mnt
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in /modules/*; do insmod $module; done
mount -t iso9660 -o ro /dev/vda /mnt
for file in /mnt/*; do echo "seed ${file#/mnt/} $(base64 -w 0 < $file)"; done
ip link set eth0 up
ip address add 10.0.2.15/24 dev eth0
echo guest-ready
while :; do echo hello from the guest | nc -l -p 22; done
"""
# A guest that tells what it has, and what it may write.
LOOK = """#!/bin/busybox sh
export PATH=/bin
/bin/busybox mkdir -p /proc
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t devtmpfs devtmpfs /dev
for module in /modules/*; do insmod $module; done
echo processors $(nproc) memory $(awk '/^MemTotal/ {print int($2 / 1024)}' /proc/meminfo)
echo flags $(grep -m1 ^flags /proc/cpuinfo)
for disk in vda vdb vdc; do
    echo $disk holds $(head -c 5 /dev/$disk)
    printf spoil | dd of=/dev/$disk conv=notrunc,fsync 2> /dev/null && echo $disk was written
    echo 3 > /proc/sys/vm/drop_caches
    echo $disk now holds $(head -c 5 /dev/$disk)
done
echo guest-ready
while :; do sleep 3600; done
"""
# What it tells of one that may be written, one that may not, and one more, which hold their names.
LOOKED = [
    *("vda holds kept", "vda was written", "vda now holds spoil"),
    *("vdb holds fixed", "vdb now holds fixed"),
    *("vdc holds other", "vdc was written", "vdc now holds spoil"),
]
# What fits a boot sector: each byte of the text to the serial port, then a halt.
SAY = bytes.fromhex("fc31c08ed8be167cbaf803ac84c07403eeebf8f4ebfd")
GREETING = b"booted from the CD\r\n"


def initramfs(machine: Machine, init: str = INIT) -> None:
    """/tmp/guest.cpio.gz: a guest with virtio, a CD's file system, and that init."""
    machine.write("/tmp/r/init", init, mode=0o755)
    machine.sh(
        "cd /tmp/r; mkdir bin modules dev; cp /usr/bin/busybox bin/; mknod dev/console c 5 1; n=10; "
        "for name in virtio_pci virtio_blk virtio_net isofs; do modprobe --show-depends $name; done | "
        "awk '/^insmod/ && !seen[$2]++ {print $2}' | "
        "while read -r file; do n=$((n + 1)); cp $file modules/$n-${file##*/}; done; "
        "find . | busybox cpio -o -H newc 2>/dev/null | gzip -1 > /tmp/guest.cpio.gz; "
        "chmod 644 /tmp/guest.cpio.gz"
    )


def launch(machine: Machine, *options: str, name: str = "demo") -> None:
    machine.run(["nestctl", "launch", name, "--user", "alice", *options], timeout=240)


def said(machine: Machine, words: str, limit: float = 240.0, name: str = "demo") -> str:
    """What the guest's console said, once it has said `words`."""
    until = time.monotonic() + limit
    while True:
        text = machine.out(
            "python3", "-c",
            "import json, subprocess, sys; sys.stdout.buffer.write(bytes(json.loads(subprocess.check_output(["
            f"'busctl', '-j', 'call', 'org.nestd1', '/org/nestd1/guest/{name}', 'org.nestd1.Guest', "
            "'GetConsoleLog']))['data'][0]))",
        )  # fmt: skip
        if words in text:
            return text
        assert time.monotonic() < until, text
        time.sleep(1)


def connect(path: str, count: int = 100) -> list[str]:
    """A command that prints what a socket, a port or a path, says first."""
    where = f"'{path}'" if path.startswith("/") else f"('127.0.0.1', {path})"
    kind = "AF_UNIX" if path.startswith("/") else "AF_INET"
    script = f"s = socket.socket(socket.{kind}); s.settimeout(60); s.connect({where}); print(s.recv({count}))"
    return ["python3", "-c", f"import socket; {script}"]


def test_a_seed_a_forwarded_port_and_a_screen(machine: Machine) -> None:
    initramfs(machine)
    machine.write("/home/alice/me.yaml", USER_DATA)
    launch(
        machine, "--memory", "192M", "--kernel", "/boot/vmlinuz", "--initrd", "/tmp/guest.cpio.gz",
        "--append", "console=ttyS0 quiet", "--user-data", "/home/alice/me.yaml", "--vnc",
        "--forward", "2222-22",
    )  # fmt: skip
    machine.run(["systemd-analyze", "security", "--threshold=30", "nestd-guest-demo.service"])
    told = said(machine, "guest-ready")
    seed = {name: base64.b64decode(data) for name, data in re.findall(r"seed (\S+) (\S+)", told)}
    assert seed["user-data"] == USER_DATA.encode()
    assert json.loads(seed["meta-data"])["local-hostname"] == "demo"
    assert machine.out(*connect("2222")) == "b'hello from the guest\\n'"
    listening = machine.out("ss", "--no-header", "-lnt", "sport = 2222").split()
    assert "127.0.0.1:2222" in listening
    shown = json.loads(machine.out("nestctl", "--json", "show", "demo"))
    assert shown["vnc"] == f"{FOLDER}/vnc"
    assert machine.out(*connect(f"{FOLDER}/vnc", 12), user="alice") == "b'RFB 003.008\\n'"
    refused = machine.run(connect(f"{FOLDER}/vnc"), user="bob", check=False)
    assert "PermissionError" in refused.stderr, refused
    # What was told to the guest lies nowhere else.
    assert machine.out("ls", "-A", "/run/nestd/handover") == ""
    unit = machine.out("systemctl", "show", "nestd-guest-demo.service")
    assert not any(line in unit for line in USER_DATA.split("\n") if line)
    modes = machine.out("stat", "-c", "%a %U", f"{FOLDER}/seed.iso")
    assert modes == "600 alice"
    machine.run(["nestctl", "kill", "demo"])
    assert machine.sh(f"test -e {FOLDER}", check=False).code == 1


def test_what_was_asked_for_is_what_the_guest_has(machine: Machine) -> None:
    """Processors, memory, flags; a disk that forgets, one that is only read, and one in QEMU's own format."""
    initramfs(machine, LOOK)
    machine.sh(
        "cd /home/alice; for name in kept fixed other; do printf %-5.5s $name > $name; truncate -s 1M $name; "
        "done; "
        "qemu-img convert -q -f raw -O qcow2 other other.qcow2; chown alice kept fixed other.qcow2"
    )
    before = machine.out("sha256sum", "/home/alice/kept", "/home/alice/fixed")
    launch(
        machine, "--memory", "192M", "--vcpus", "2", "--cpu-feature=-sse4a", "--kernel", "/boot/vmlinuz",
        "--initrd", "/tmp/guest.cpio.gz", "--append", "console=ttyS0 quiet",
        "--disk", "path=/home/alice/kept,format=raw,snapshot",
        "--disk", "path=/home/alice/fixed,format=raw,readonly",
        "--disk", "path=/home/alice/other.qcow2,format=qcow2",
        "--forward", "udp:0.0.0.0:5353-53", "--forward", "0.0.0.0:2223-22",
    )  # fmt: skip
    for kind, port in (("-lnu", 5353), ("-lnt", 2223)):
        assert f"0.0.0.0:{port}" in machine.out("ss", "--no-header", kind, f"sport = {port}").split()
    told = said(machine, "guest-ready").replace("\r", "")
    found = re.search(r"processors (\d+) memory (\d+)", told)
    assert found and found[1] == "2" and 128 < int(found[2]) < 192, told
    [flags] = re.findall(r"^flags .*$", told, re.MULTILINE)
    assert " svm " in flags and " sse4a " not in flags
    assert [line for line in told.split("\n") if line.startswith("vd")] == LOOKED
    machine.run(["nestctl", "kill", "demo"])
    assert machine.out("sha256sum", "/home/alice/kept", "/home/alice/fixed") == before
    machine.sh("cd /home/alice; qemu-img convert -q -f qcow2 -O raw other.qcow2 seen; grep -q ^spoil seen")


def test_a_guest_starts_from_a_cd(machine: Machine) -> None:
    sector = (SAY + GREETING + b"\0").ljust(2048, b"\0")
    machine.push(("boot.bin", sector), to="/home/alice/cd")
    machine.sh(
        "cd /home/alice/cd; chmod 644 boot.bin; bsdtar --format=iso9660 -cf '/home/alice/a b,c.iso' "
        "--options='boot=boot.bin,boot-type=no-emulation,boot-load-size=4' boot.bin"
    )
    launch(machine, "--memory", "64M", "--cdrom", "/home/alice/a b,c.iso")
    said(machine, GREETING.decode().strip())
    machine.run(["systemd-analyze", "security", "--threshold=20", "nestd-guest-demo.service"])
    machine.run(["nestctl", "kill", "demo"])


def test_each_guest_has_uefi_variables_of_its_own(machine: Machine) -> None:
    """That they boot is in tests/guests/test_uefi.py: QEMU 7.2's emulated AMD-V aborts under OVMF."""
    template = machine.out("sha256sum", "/usr/share/OVMF/OVMF_VARS_4M.fd").split()[0]
    for name in ("demo", "other"):
        # Halted before OVMF has come far.
        machine.sh(
            f"nestctl launch {name} --user alice --memory 64M --firmware uefi; "
            f"systemctl kill --signal=STOP nestd-guest-{name}.service",
            timeout=240,
        )
    copies = [f"/run/nestd/guests/{name}/uefi-variables.fd" for name in ("demo", "other")]
    told = machine.out("stat", "-c", "%a %U %i", *copies).split("\n")
    assert [line.rpartition(" ")[0] for line in told] == ["600 alice"] * 2 and told[0] != told[1]
    pid = show(machine, "demo")["pid"]
    held = machine.sh(f"ls -l /proc/{pid}/fd | grep -o '/[^ ]*[.]fd$'").stdout.split()
    assert set(held) == {copies[0], "/usr/share/OVMF/OVMF_CODE_4M.fd"}
    assert machine.out("sha256sum", "/usr/share/OVMF/OVMF_VARS_4M.fd").split()[0] == template
    machine.run(["systemd-analyze", "security", "--threshold=20", "nestd-guest-demo.service"])
    machine.sh("nestctl kill demo; nestctl kill other")
    assert machine.sh("ls /run/nestd/guests").stdout.split() == []


def test_arguments_of_ones_own_have_an_action_of_their_own(machine: Machine) -> None:
    machine.write(
        "/etc/polkit-1/rules.d/10-test.rules",
        ALLOW.replace('.indexOf("org.nestd1.") == 0', ' == "org.nestd1.launch"'),
    )
    machine.sh("systemctl restart polkit")
    plain = ["nestctl", "--no-ask-password", "launch", "demo", "--memory", "64M"]
    raw = [*plain, "--extra-arg=-rtc", "--extra-arg", "base=2020-02-02"]
    refused = machine.run(raw, user="alice", check=False)
    assert refused.code == 3, refused
    machine.run(plain, user="alice", timeout=240)
    machine.run(["nestctl", "kill", "demo"], user="alice")
    machine.write("/etc/polkit-1/rules.d/10-test.rules", ALLOW)
    machine.sh("systemctl restart polkit")
    machine.run(raw, user="alice", timeout=240)
    pid = machine.out("systemctl", "show", "-P", "MainPID", "nestd-guest-demo.service")
    assert machine.text(f"/proc/{pid}/cmdline").endswith("\0-rtc\0base=2020-02-02\0")
    machine.run(["nestctl", "kill", "demo"], user="alice")


@pytest.mark.parametrize(
    ("hide", "options", "words"),
    [
        ("/usr/share/OVMF", "--firmware uefi", "install the package ovmf"),
        ("/usr/bin/bsdtar", "--user-data /etc/hostname", "install libarchive-tools"),
        ("", "--forward 2222-22", "Something else listens on that port"),
        ("", "--cdrom /home/alice/none.iso", "none.iso"),
        ("", "--network lab=none", "none"),
    ],
)
def test_what_stands_in_the_way_is_told(machine: Machine, hide: str, options: str, words: str) -> None:
    if hide:
        machine.sh(f"mount -o bind,ro $(test -d {hide} && echo /mnt || echo /dev/null) {hide}")
    listen = (
        "import socket, time; s = socket.create_server(('127.0.0.1', 2222)); print('listens', flush=True); "
        "time.sleep(600)"
    )
    with machine.background(["python3", "-c", listen]) as listener:
        listener.wait_for("listens", 60)
        refused = machine.run(
            ["nestctl", "launch", "demo", "--user", "alice", "--memory", "64M", *shlex.split(options)],
            check=False,
            timeout=240,
        )
    assert refused.code == 1 and words in refused.stderr, refused
    left = machine.sh(
        "systemctl list-units --all 'nestd-guest-*' --no-legend; ls -A /run/nestd/guests || true"
    )
    assert left.stdout.strip() == ""
