# SPDX-License-Identifier: LGPL-2.1-or-later
"""The names of CPUID's bits: QEMU's held against the real QEMU, the kernel's against real machines."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from nestd.guestmodel import GuestSpec
from nestd.text import cpuid, cpuinfo, qmp
from tests.support import loop
from tests.support.tree import CAPTURES
from tests.text.realqemu import monitor_of, running


def _names(words: list[dict[str, Any]]) -> set[str]:
    return {
        name
        for word in words
        for name in cpuid.names(
            word["cpuid-input-eax"], word.get("cpuid-input-ecx", 0), word["cpuid-register"], word["features"]
        )
    }


def test_the_real_qemu_knows_each_bit_by_our_name(tmp_path: Path) -> None:
    """A vCPU that is asked for all names that QEMU has gets or drops them, and each bit is its name's."""
    ours = {name for word in cpuid._WORDS.values() for name in word.split()} - {"-"}

    async def known(process: subprocess.Popen[str]) -> set[str]:
        async with await monitor_of(tmp_path, process) as monitor:
            cpu = qmp.vcpu_path(await monitor.execute("query-cpus-fast"))
            return {one["name"] for one in await monitor.execute("qom-list", {"path": cpu})} & ours

    async def told(process: subprocess.Popen[str]) -> set[str]:
        async with await monitor_of(tmp_path, process) as monitor:
            cpu = qmp.vcpu_path(await monitor.execute("query-cpus-fast"))
            words = [
                await monitor.execute("qom-get", {"path": cpu, "property": name})
                for name in ("feature-words", "filtered-features")
            ]
            return _names(words[0]) | _names(words[1])

    with running(tmp_path, GuestSpec("demo", "alice", "qemu64")) as process:
        names = loop.run(known(process))
    # Only what is newer than the oldest QEMU that nestd is tried with may be unknown to it.
    assert len(names) > 150 and {"svm", "vmx", "invtsc", "svme-addr-chk", "avx-vnni", "xsaves"} <= names
    (tmp_path / "qmp").unlink()
    (tmp_path / "console").unlink()
    every = GuestSpec("demo", "alice", "qemu64", tuple(f"+{name}" for name in sorted(names)))
    with running(tmp_path, every) as process:
        found = loop.run(told(process))
    aliases = {name for name in found if name.startswith("CPUID.")}
    # AMD's copies of leaf 1's bits, and the parts of the XSAVE area: QEMU has no names for them.
    assert {name.split(":")[0] for name in aliases} <= {"CPUID.80000001H", "CPUID.0DH"}, json.dumps(
        [*aliases]
    )
    assert found - aliases == names


@pytest.mark.parametrize(
    ("host", "granted", "missing"),
    [
        ("fpu svm npt", "fpu svm npt", ""),
        ("fpu svm npt", "fpu", "npt svm"),
        ("vmx vnmi ept vpid", "", "vmx"),
        # By QEMU's names, which are what --cpu-feature takes.
        ("pni sse4_1 lahf_lm ds_cpl dts tsc_deadline_timer", "", "ds ds-cpl lahf-lm pni sse4.1 tsc-deadline"),
        ("sse4_1 lahf_lm fxsr_opt arch_capabilities", "sse4.1 lahf-lm fxsr-opt arch-capabilities", ""),
        ("avx512_vnni avx512_vpopcntdq avx512_bf16", "", "avx512-bf16 avx512-vpopcntdq avx512vnni"),
        ("constant_tsc nonstop_tsc", "", "invtsc"),
        (
            "abm misalignsse nx pdpe1gb cr8_legacy pausefilter",
            "nx",
            "abm cr8legacy misalignsse pause-filter pdpe1gb",
        ),
        # The kernel's own words, and what the number of vCPUs decides.
        ("rep_good nopl cpuid pti xtopology constant_tsc ht cmp_legacy", "", ""),
        # One name of the kernel's for the bit of either vendor.
        ("ibrs ibpb stibp ssbd", "spec-ctrl stibp ssbd", ""),
        ("ibrs ibpb stibp ssbd", "ibpb ibrs amd-stibp virt-ssbd", ""),
        ("ibrs ibpb stibp ssbd", "amd-ssbd", "ibpb ibrs stibp"),
        ("", "svm", ""),
    ],
)
def test_what_did_not_arrive(host: str, granted: str, missing: str) -> None:
    assert sorted(cpuid.withheld(host.split(), granted.split())) == missing.split()


@pytest.mark.parametrize(
    ("capture", "unjudged"),
    [
        ("pvm", "constant_tsc cpuid cpuid_fault ht nopl rep_good tsc_known_freq xtopology"),
        ("debian-12-cloud", "cpuid extd_apicid nopl rep_good vmmcall"),
        (
            "bochs-intel",
            (
                "aperfmperf arch_perfmon bts constant_tsc cpuid dtherm epb ept ept_ad flexpriority ht ida "
                "invpcid_single nopl pebs pln pts tpr_shadow vnmi vpid"
            ),
        ),
    ],
)
def test_only_what_qemu_cannot_give_is_not_compared(capture: str, unjudged: str) -> None:
    """On real machines; of all else each flag has one name, and a vCPU without any lacks it."""
    flags = cpuinfo.flags((CAPTURES / f"cpuinfo-{capture}").read_text())
    left = [flag for flag in flags if not cpuid.withheld([flag], [])]
    assert sorted(left) == unjudged.split()
    assert len(cpuid.withheld(flags, [])) == len(flags) - len(left)
