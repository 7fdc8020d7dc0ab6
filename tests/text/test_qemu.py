# SPDX-License-Identifier: LGPL-2.1-or-later
"""QEMU's arguments: what stands where, and that the real QEMU takes them and means the same by them."""

from __future__ import annotations

import json
import re
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from nestd.guestmodel import Disk, GuestSpec, Network, VcpuVerdict
from nestd.guests import vcpu
from nestd.host.root import Root
from nestd.model import Extension
from nestd.text import cpuid, qemu
from tests.support import loop
from tests.support.tree import Tree
from tests.text.realqemu import monitor_of, running

NASTY = 'a,b $X "q" %n.img'


def _after(argv: list[str], option: str) -> list[str]:
    return [value for name, value in pairwise(argv) if name == option]


@pytest.mark.parametrize(
    ("cpu", "features", "extension", "said"),
    [
        ("host", (), Extension.SVM, "host"),
        ("host", ("-avx",), Extension.VMX, "host,-avx"),
        ("qemu64", (), Extension.SVM, "qemu64,+svm"),
        ("Nehalem", ("+aes", "-x2apic"), Extension.VMX, "Nehalem,+vmx,+aes,-x2apic"),
        ("EPYC", ("+svm",), Extension.SVM, "EPYC,+svm"),
        ("EPYC", ("-svm", "+npt"), Extension.SVM, "EPYC,-svm,+npt"),
        ("EPYC", (), Extension.NONE, "EPYC"),
    ],
)
def test_the_cpu(cpu: str, features: tuple[str, ...], extension: Extension, said: str) -> None:
    spec = GuestSpec("demo", "alice", cpu=cpu, cpu_features=features)
    assert qemu.cpu(spec, extension) == said


def test_memory_is_rounded_up_and_read_back() -> None:
    spec = GuestSpec("demo", "alice", memory=(64 << 20) + 1, vcpus=3)
    argv = qemu.arguments(spec, Extension.SVM, "/run/g", "/run/log")
    assert _after(argv, "-m") == ["65M"]
    told = qemu.Shape("host", 65 << 20, 3)
    assert qemu.shape(["/usr/bin/qemu", *argv]) == told == qemu.shape_of(spec, Extension.SVM)


def test_the_shape_is_read_from_what_nestd_itself_said() -> None:
    spec = GuestSpec(
        "demo", "alice", "qemu64", memory=64 << 20, display="vnc", network=Network("lab", lab="two")
    )
    told = qemu.Shape("qemu64,+svm", 64 << 20, 1, vnc=True, lab="two")
    assert qemu.shape_of(spec, Extension.SVM) == told
    assert qemu.shape(["/q", *qemu.arguments(spec, Extension.SVM, "/run/g", "/log")]) == told
    # What the caller says last, and what only looks like an option.
    liar = GuestSpec(
        "demo",
        "alice",
        kernel="/k",
        append="-vnc",
        extra_args=("-m", "1M", "-netdev", "socket,id=lab.x", "-smp", "9"),
    )
    for network in (Network(), Network("user")):
        argv = ["/q", *qemu.arguments(liar._replace(network=network), Extension.SVM, "/run/g", "/log")]
        assert argv[-6:] == list(liar.extra_args)
        assert qemu.shape(argv) == qemu.Shape("host", 512 << 20, 1)


@pytest.mark.parametrize("argv", [[], ["sleep", "5"], ["-m", "65", "-smp", "1", "-cpu", "host"], ["-cpu"]])
def test_what_is_no_argument_list_of_ours(argv: list[str]) -> None:
    assert qemu.shape(argv) is None


def test_the_guest_waits_and_is_locked_up() -> None:
    argv = qemu.arguments(GuestSpec("demo", "alice"), Extension.SVM, "/run/g", "/run/log")
    assert "-S" in argv
    assert "spawn=deny" in _after(argv, "-sandbox")[0]
    assert "accel=kvm" in _after(argv, "-machine")[0]
    assert _after(argv, "-nic") == ["none"]
    assert "-kernel" not in argv


def test_nothing_from_outside_is_parsed_by_qemu() -> None:
    disks = (Disk(f"/d/{NASTY}", "raw"), Disk(f"/s/{NASTY}", "qcow2", readonly=True, snapshot=True))
    spec = GuestSpec("demo", "alice", disks=disks, kernel=f"/k/{NASTY}", initrd="/i,x", append="a=b,c -S")
    argv = qemu.arguments(spec, Extension.SVM, "/run/g,h", "/run/l,m")
    assert json.loads(_after(argv, "-blockdev")[0]) == {
        "driver": "raw",
        "node-name": "disk0",
        "read-only": False,
        "file": {"driver": "file", "filename": f"/d/{NASTY}", "read-only": False},
    }
    [drive] = _after(argv, "-drive")
    assert drive.endswith(",file.filename=/s/" + NASTY.replace(",", ",,"))
    assert "format=qcow2" in drive
    assert "snapshot=on" in drive
    assert _after(argv, "-kernel") == [f"/k/{NASTY}"]
    assert _after(argv, "-initrd") == ["/i,x"]
    assert _after(argv, "-append") == ["a=b,c -S"]
    assert "path=/run/g,,h/console," in _after(argv, "-chardev")[1]
    assert "logfile=/run/l,,m," in _after(argv, "-chardev")[1]


def test_the_real_qemu_takes_it_all_and_says_what_the_vcpu_got(tmp_path: Path) -> None:
    for name in (NASTY, "snapshot.img", "readonly.img"):
        (tmp_path / name).write_bytes(bytes(1 << 20))
    (tmp_path / "readonly.img").chmod(0o444)
    disks = [Disk(str(tmp_path / NASTY), "raw"), Disk(str(tmp_path / "snapshot.img"), "raw", snapshot=True)]
    # As many as a guest may have: the bus has room for them.
    disks += [Disk(str(tmp_path / "readonly.img"), "raw", readonly=True)] * 22
    spec = GuestSpec("demo", "alice", cpu="qemu64", memory=64 << 20, vcpus=2, disks=tuple(disks))
    tree = Tree(tmp_path / "tree").intel(
        "fpu sse2 ht vmx svm pni avx 3dnowprefetch sse4_1 lahf_lm rep_good nx"
    )

    async def scenario(process: subprocess.Popen[str]) -> None:
        async with await monitor_of(tmp_path, process) as monitor:
            assert await vcpu.waits_to_run(monitor)
            assert (await vcpu.ask(monitor, tree.root, Extension.SVM)).nesting
            verdict = await vcpu.ask(monitor, tree.root, Extension.VMX, Extension.SIE)
            assert verdict == VcpuVerdict(False, ("3dnowprefetch", "avx", "sse4.1", "vmx"), ())
            devices = [block["inserted"] for block in await monitor.execute("query-block")]
            assert len(devices) == 24
            assert [one["ro"] for one in devices if one["file"] == str(tmp_path / NASTY)] == [False]
            assert sum(one["ro"] for one in devices) == 22
            [overlay] = [one for one in devices if one.get("backing_file") == str(tmp_path / "snapshot.img")]
            assert not overlay["ro"]
            await monitor.execute("cont")
            assert not await vcpu.waits_to_run(monitor)
            assert (await monitor.execute("query-name")) == {"name": "demo"}
            await monitor.execute("quit")

    with running(tmp_path, spec) as process:
        loop.run(scenario(process))
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_the_real_qemu_names_dropped_flags_as_we_do(tmp_path: Path) -> None:
    flags = ("vmx", "avx512f", "dca", "md-clear", "lwp", "avic", "amd-ssbd", "umip")
    spec = GuestSpec("demo", "alice", "qemu64", tuple(f"+{flag}" for flag in flags))

    async def scenario(process: subprocess.Popen[str]) -> VcpuVerdict:
        async with await monitor_of(tmp_path, process) as monitor:
            verdict = await vcpu.ask(monitor, Root(str(tmp_path)), Extension.SVM)
            await monitor.execute("quit")
            return verdict

    with running(tmp_path, spec) as process:
        verdict = loop.run(scenario(process))
        _, said = process.communicate(timeout=30)
    assert verdict.nesting  # svm, which TCG has
    dropped = re.findall(r"CPUID\.(\w+)H:(E[A-D]X)\.(\S+) \[bit (\d+)\]", said)
    assert verdict.missing == verdict.dropped
    assert set(verdict.missing) == {name for _, _, name, _ in dropped}
    assert {"vmx", "avx512f"} <= set(verdict.missing)
    for leaf, register, name, bit in dropped:
        assert cpuid.names(int(leaf, 16), 0, register, 1 << int(bit)) == [name]


def test_a_bit_without_a_name_is_told_by_its_place() -> None:
    assert cpuid.names(0xD, 0, "EAX", 0b1001) == ["CPUID.0DH:EAX[bit 0]", "CPUID.0DH:EAX[bit 3]"]
    assert cpuid.names(1, 0, "ECX", 1 << 11) == ["CPUID.01H:ECX[bit 11]"]
