# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nestd.host.holders import holders, place_of
from nestd.host.root import Root
from nestd.model import Holder
from tests.support.tree import Tree

VM = ("/dev/null", "/dev/kvm", "anon_inode:kvm-vm", "anon_inode:kvm-vcpu:0")
LIBVIRT = "0::/machine.slice/machine-qemu\\x2d3\\x2dmy\\x2dvm.scope/libvirt/emulator\n"


def test_holders(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.process(1, "systemd", "/dev/null", "socket:[1]", "/dev/kvmx", cgroup="0::/init.scope\n")
    tree.process(200, "qemu-system-x86", *VM, cgroup=LIBVIRT)
    tree.process(30, "qemu", *VM, cgroup="0::/machine.slice/nestd-guest-demo.service\n")
    tree.process(4, "vmm", "anon_inode:kvm-vm", cgroup="0::/user.slice/user-1.slice/session-2.scope\n")
    tree.process(5, "a\x1b[1m\n b", "/srv/root/dev/kvm", cgroup="")
    assert holders(tree.root) == (
        Holder(4, "vmm", "session-2.scope", ""),
        Holder(5, "a?[1m? b", "", ""),
        Holder(30, "qemu", "nestd-guest-demo.service", "demo"),
        Holder(200, "qemu-system-x86", r"machine-qemu\x2d3\x2dmy\x2dvm.scope", "my-vm"),
    )


def test_what_vanishes_is_left_out(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.process(7, "qemu", *VM).gone("/proc/7/comm")
    tree.process(8, "qemu", *VM).gone("/proc/8/fd")
    tree.write("/proc/9x/comm", "x\n").write("/proc/\u0663/comm", "x\n")
    assert holders(tree.root) == ()


def test_no_proc(tmp_path: Path) -> None:
    assert holders(Root(str(tmp_path))) == ()


def test_real_proc() -> None:
    """A process of ours has a file open whose name ends in /dev/kvm, as another namespace's would."""
    script = "import os, sys, tempfile\nwith tempfile.TemporaryDirectory() as top:\n"
    script += (
        " os.mkdir(top + '/dev'); file = open(top + '/dev/kvm', 'w')\n print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=-1, stdout=-1) as process:
        assert process.stdout and process.stdin
        process.stdout.readline()
        found = {holder.pid: holder for holder in holders(Root())}
        process.stdin.close()
    assert found[process.pid].comm.startswith("python")
    assert os.getpid() not in found


def test_processes_of_others_are_left_out() -> None:
    script = "from nestd.host import holders, root\nimport os\nif os.getuid() == 0: os.setuid(65534)\n"
    script += "assert not os.access('/proc/1/fd', os.R_OK)\nholders.holders(root.Root())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


ID = "0123456789ab" + "c" * 52
PODS = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice"
USER = "user.slice/user-1000.slice/user@1000.service"


@pytest.mark.parametrize(
    ("cgroup", "unit", "machine"),
    [
        # No machine: the innermost unit.
        ("0::/system.slice/foo.service\n", "foo.service", ""),
        ("0::/user.slice/user-1000.slice/session-3.scope\n", "session-3.scope", ""),
        (f"0::/{USER}/app.slice/app-x.scope/sub\n", "app-x.scope", ""),
        ("12:cpu:/a.service\n0::/b.service\n", "b.service", ""),
        ("12:cpu:/a.service\n", "", ""),
        ("0::/\n", "", ""),
        ("0::", "", ""),
        ("", "", ""),
        ("garbage\n:\n", "", ""),
        ("0::/.service\n", "", ""),
        ("0::/a\x1bb.service\n", "a?b.service", ""),
        # cgroup 1
        ("9:cpu:/x\n1:name=systemd:/system.slice/a.service\n0::/b.service\n", "a.service", ""),
        # Virtual machines
        ("0::/machine.slice/nestd-guest-demo.service\n", "nestd-guest-demo.service", "demo"),
        ("0::/machine.slice/nestd-guest-a.b_c-1.service", "nestd-guest-a.b_c-1.service", "a.b_c-1"),
        (
            "0::/machine.slice/machine-qemu\\x2d12\\x2dweb.scope/libvirt/vcpu0\n",
            r"machine-qemu\x2d12\x2dweb.scope",
            "web",
        ),
        # Containers: the host's unit, whatever the container has below
        ("0::/machine.slice/machine-deb.scope/payload/system.slice/qemu.service", "machine-deb.scope", "deb"),
        (
            "0::/machine.slice/systemd-nspawn@deb.service/payload/user.slice/session-1.scope\n",
            "systemd-nspawn@deb.service",
            "deb",
        ),
        (f"0::/system.slice/docker-{ID}.scope/system.slice/x.service", f"docker-{ID}.scope", "0123456789ab"),
        (f"0::/machine.slice/libpod-{ID}.scope/container", f"libpod-{ID}.scope", "0123456789ab"),
        (f"0::/{USER}/user.slice/libpod-{ID}.scope/container", f"libpod-{ID}.scope", "0123456789ab"),
        (f"0::/{PODS}/cri-containerd-{ID}.scope", f"cri-containerd-{ID}.scope", "0123456789ab"),
        (f"0::/{PODS}/crio-{ID}.scope", f"crio-{ID}.scope", "0123456789ab"),
        (f"0::/docker/{ID}/init.scope", "", "0123456789ab"),
        ("0::/lxc.payload.web/system.slice/qemu.service", "", "web"),
        ("0::/system.slice/lxc.service/lxc.payload.a-b", "lxc.service", "a-b"),
        # Escapes (systemd.unit(5))
        (r"0::/machine-lab\x2done.scope", r"machine-lab\x2done.scope", "lab-one"),
        (r"0::/machine-\xc3\xa4.scope", r"machine-\xc3\xa4.scope", "ä"),
        (r"0::/machine-\xff\x1b.scope", r"machine-\xff\x1b.scope", "\ufffd?"),
        (r"0::/machine-\xZZ.scope", r"machine-\xZZ.scope", r"\xZZ"),
        # What only looks like one
        ("0::/machine.slice", "", ""),
        ("0::/machine-x.service", "machine-x.service", ""),
        ("0::/docker-0123.scope", "docker-0123.scope", ""),
        ("0::/libpod-conmon-1.scope", "libpod-conmon-1.scope", ""),
    ],
)
def test_place_of(cgroup: str, unit: str, machine: str) -> None:
    assert place_of(cgroup) == (unit, machine)
