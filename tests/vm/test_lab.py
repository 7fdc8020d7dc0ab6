# SPDX-License-Identifier: LGPL-2.1-or-later
"""A lab, all of it real: its nodes hear each other and keep their disks; nestd is killed; nothing is left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.vm.machine import Machine
from tests.vm.test_pending import wait_until

INIT = Path(__file__).parent / "baked/node-init"
# Besides, its name is written to its disk at its first start, and what is there told at each.
DISK = rb"""
if [ -b /dev/vda ]; then
    found=$(head -c 64 /dev/vda | tr -d '\0')
    [ -n "$found" ] || echo "$name" | dd of=/dev/vda bs=512 conv=sync,fsync 2>/dev/null
    echo "node-disk $name has ${found:-nothing}"
fi
"""
# The other tests' guest with a network card and another /init: the kernel unpacks one archive after another.
NODE = r"""
mkdir -p /tmp/node/modules
sed '/^echo "node-ready/r /tmp/in/node-disk' /tmp/in/node-init > /tmp/node/init
chmod 755 /tmp/node/init
for module in virtio_pci virtio_net virtio_blk button evdev; do
    modprobe --show-depends "$module" | sed -n 's/^insmod //p'
done | awk '!seen[$1]++ { print $1 }' | while read -r path; do
    cp "$path" /tmp/node/modules
    basename "$path"
done > /tmp/order
mv /tmp/order /tmp/node/modules/order
cd /tmp/node
find . | busybox cpio -o -H newc 2>/dev/null | gzip -1 > /tmp/more.cpio.gz
cat /usr/share/nestd-test/guest.cpio.gz /tmp/more.cpio.gz > /var/tmp/node.cpio.gz
chmod 644 /var/tmp/node.cpio.gz
"""
OPTIONS = (
    "--memory 128M --kernel /boot/vmlinuz --initrd /var/tmp/node.cpio.gz "
    "--append 'console=ttyS0 quiet node.name=%n node.address=%a'"
)
BASE = "/home/alice/base.raw"
MAKE_BASE = f"qemu-img create -q -f raw {BASE} 16M; chown alice {BASE}"
WITH_DISK = f"--user alice --disk path={BASE},format=raw {OPTIONS}"
RECORD = "/var/lib/nestd/labs/town.json"
UNITS = "systemctl list-units --all --no-legend --plain 'nestd-guest-*' 'nestd-lab-*' 'nestd-clean-*'"


@pytest.fixture
def nodes(machine: Machine) -> Machine:
    """The machine, with an initramfs for nodes."""
    machine.push(INIT, ("node-disk", DISK), to="/tmp/in")
    machine.sh(NODE)
    return machine


def lab(machine: Machine, name: str = "town") -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(machine.out("nestctl", "--json", "lab", "show", name))
    return shown


def becomes(machine: Machine, state: str) -> None:
    """Wait until the lab is in that state: nestd finds nodes again once it is ready."""
    wait_until(machine, f"$(nestctl lab show town | grep -w State) == *{state}*")
    assert lab(machine)["state"] == state


def says(machine: Machine, guest: str, words: str) -> None:
    """Wait until the guest's console has those words."""
    machine.sh(
        f"set +o pipefail; timeout 400 nestctl console {guest} < /dev/null | grep -m1 -a '^{words}'",
        timeout=430,
    )


def left(machine: Machine) -> list[str]:
    """What there is of labs and guests, beside the emptied folders themselves."""
    folders = "/run/nestd/guests /run/nestd/labs /var/lib/nestd-labs /var/lib/nestd/labs"
    files = machine.sh(f"for folder in {folders}; do [ ! -d $folder ] || find $folder -mindepth 1; done")
    return [*files.stdout.splitlines(), *machine.sh(UNITS).stdout.splitlines()]


def test_two_nodes_hear_each_other(nodes: Machine) -> None:
    machine = nodes
    machine.sh(MAKE_BASE)
    before = machine.out("sha256sum", BASE)
    made = machine.sh(f"nestctl lab create town {WITH_DISK}", timeout=400)
    assert "10.77.0.2/24" in made.stdout and "running" in made.stdout, made
    alice = machine.out("id", "-u", "alice")
    assert machine.out("stat", "-c", "%u %a", "/var/lib/nestd-labs/town") == f"{alice} 700"
    assert machine.out("ls", "/var/lib/nestd-labs/town").split() == ["1-0.qcow2", "2-0.qcow2"]

    # The segment is as closed as a guest, and holds no driver.
    machine.run(["systemd-analyze", "security", "--threshold=20", "nestd-lab-town.service"])
    pid = machine.out("systemctl", "show", "-P", "MainPID", "nestd-lab-town.service")
    assert machine.out("stat", "-c", "%u", f"/proc/{pid}") == alice
    assert "/dev/kvm" not in machine.sh(f"readlink /proc/{pid}/fd/*").stdout

    machine.sh("systemctl kill --signal=KILL nestd.service; sleep 1; systemctl start nestd.service")
    becomes(machine, "running")
    says(machine, "town-1", "node-hears town-1 10.77.0.2")
    says(machine, "town-2", "node-hears town-2 10.77.0.1")

    # A node that comes again is heard again, by way of a nestd that did not make the segment.
    machine.sh("nestctl kill town-2")
    becomes(machine, "partial")
    machine.sh("nestctl lab start town", timeout=400)
    says(machine, "town-2", "node-hears town-2 10.77.0.1")

    machine.sh("nestctl lab stop town --timeout 60", timeout=400)
    becomes(machine, "stopped")
    wait_until(machine, f"-z $({UNITS})")
    machine.sh("systemctl restart nestd.service")
    assert machine.sh("nestctl lab list").stdout.split()[-4:] == ["0", "of", "2", "run"]
    machine.sh("nestctl lab start town", timeout=400)
    # What each wrote at its first start is on its own disk, and the base is as it was.
    for node in ("town-1", "town-2"):
        says(machine, node, f"node-disk {node} has {node}")
    assert machine.out("sha256sum", BASE) == before
    # Whatever the owner's own processes have put there goes, and nothing else.
    machine.sh(
        "ln -s /home/alice /var/lib/nestd-labs/town/home; mkdir -m 1755 -p /var/lib/nestd-labs/town/a/b/c",
        user="alice",
    )
    machine.sh("nestctl lab remove town", timeout=400)
    assert left(machine) == []
    assert machine.out("sha256sum", BASE) == before
    assert machine.sh("systemctl --failed --no-legend").stdout.strip() == ""


def test_what_cannot_start_leaves_nothing_and_what_is_cut_short_is_settled(nodes: Machine) -> None:
    machine = nodes
    machine.sh("nestctl launch town-2 --memory 64M --kernel /boot/vmlinuz", timeout=240)
    refused = machine.run(["sh", "-c", f"nestctl lab create town {OPTIONS}"], check=False, timeout=400)
    assert refused.code == 1 and "town-2" in refused.stderr, refused
    machine.sh("nestctl kill town-2")
    assert left(machine) == []

    # nestd dies in the middle of a creation.
    machine.sh(f"(nestctl lab create town --nodes 3 {OPTIONS} || true) > /dev/null 2>&1 &")
    machine.sh(
        "timeout 300 sh -c 'until [ -S /run/nestd/guests/town-2/qmp ]; do sleep 0.1; done'", timeout=330
    )
    machine.sh("systemctl kill --signal=KILL nestd.service; sleep 1; systemctl start nestd.service")
    machine.sh(
        "timeout 120 sh -c 'until nestctl lab list | grep -q \"No labs\"; do sleep 0.5; done'", timeout=150
    )
    machine.sh(f"timeout 60 sh -c 'while [ -n \"$({UNITS})\" ]; do sleep 0.5; done'", timeout=90)
    assert left(machine) == []


def refused(machine: Machine, command: str) -> str:
    """What nestctl says on stderr, as it fails."""
    done = machine.run(["sh", "-c", f"nestctl {command}"], check=False, timeout=400)
    assert (done.code, done.stdout) == (1, ""), done
    return done.stderr


@pytest.mark.nightly
def test_what_is_lost_is_named_and_what_to_do_about_it_works(nodes: Machine) -> None:
    machine = nodes
    words = refused(machine, f"lab create town {WITH_DISK}")
    assert f"Could not open '{BASE}': No such file" in words
    assert left(machine) == []

    machine.sh(MAKE_BASE)
    machine.sh(f"nestctl lab create town {WITH_DISK}", timeout=400)
    says(machine, "town-1", "node-disk town-1 has nothing")
    machine.sh("systemctl kill --signal=KILL nestd-lab-town.service")
    becomes(machine, "partial")
    assert [node["guest"] for node in lab(machine)["nodes"]] == ["town-1", "town-2"]
    machine.sh("nestctl kill town-2")
    assert "ended under its guests: stop the lab, then start it" in refused(machine, "lab start town")
    machine.sh("nestctl lab stop town --timeout 0", timeout=400)
    machine.sh("nestctl lab start town", timeout=400)
    becomes(machine, "running")
    says(machine, "town-1", "node-hears town-1 10.77.0.2")

    # Nobody else takes a node's name while the lab is off.
    machine.sh("nestctl lab stop town --timeout 0", timeout=400)
    taken = refused(machine, "launch town-2 --memory 64M --kernel /boot/vmlinuz")
    assert "town-2 is a node of the lab town" in taken

    machine.sh(f"mv {BASE} {BASE}.away")
    assert f"has to stay at {BASE}" in refused(machine, "lab start town")
    becomes(machine, "stopped")
    machine.sh(f"mv {BASE}.away {BASE}")
    machine.sh("rm /var/lib/nestd-labs/town/2-0.qcow2")
    assert "disk of town-2 is gone: remove the lab" in refused(machine, "lab start town")
    becomes(machine, "stopped")
    machine.sh("nestctl lab remove town", timeout=400)
    assert left(machine) == []
    assert machine.sh("systemctl --failed --no-legend").stdout.strip() == ""


def dies_doing(machine: Machine, what: str) -> None:
    """Kill nestd, which is in the middle of that, and start it again."""
    # It is halted first, for systemd starts it again at once.
    kill = "systemctl kill nestd.service --signal"
    record = machine.sh(f"{kill}=STOP; cat {RECORD}; {kill}=KILL; sleep 1; systemctl start nestd.service")
    assert json.loads(record.stdout)["doing"] == what


@pytest.mark.nightly
def test_a_lab_outlives_a_reboot_and_what_is_interrupted_is_settled(nodes: Machine) -> None:
    machine = nodes
    machine.sh(MAKE_BASE)
    machine.sh(f"nestctl lab create town {WITH_DISK}", timeout=400)
    says(machine, "town-2", "node-disk town-2 has nothing")
    machine.reboot()
    assert machine.sh("nestctl lab list").stdout.split()[-4:] == ["0", "of", "2", "run"]
    becomes(machine, "stopped")

    # nestd dies in the middle of a start, which is undone; the next one is whole.
    machine.sh("(nestctl lab start town || true) > /dev/null 2>&1 &")
    machine.sh(
        "timeout 300 sh -c 'until [ -S /run/nestd/guests/town-2/qmp ]; do sleep 0.1; done'", timeout=330
    )
    dies_doing(machine, "start")
    wait_until(machine, f"-z $({UNITS})")
    wait_until(machine, f"-z $(grep start {RECORD})")
    becomes(machine, "stopped")
    machine.sh("nestctl lab start town", timeout=400)
    says(machine, "town-2", "node-disk town-2 has town-2")
    becomes(machine, "running")

    # And in the middle of a removal, which the next nestd ends.
    machine.sh("(nestctl lab remove town || true) > /dev/null 2>&1 &")
    machine.sh(f"timeout 60 sh -c 'until grep -q remove {RECORD}; do :; done'")
    dies_doing(machine, "remove")
    wait_until(machine, "$(nestctl lab list) == *'No labs'*")
    wait_until(machine, f"-z $({UNITS})")
    assert left(machine) == []
    assert machine.sh("systemctl --failed --no-legend").stdout.strip() == ""
