# SPDX-License-Identifier: LGPL-2.1-or-later
"""The lines of QMP, and the verdict on a vCPU."""

from __future__ import annotations

import json

import pytest

from nestd.errors import Malformed
from nestd.guestmodel import VcpuVerdict
from nestd.text import qmp

# query-cpus-fast and a vCPU's properties as QEMU 7.2 answers them under TCG to qemu64,+vmx,+avx512f.
CPUS = [
    {"thread-id": 1, "props": {"core-id": 0}, "qom-path": "/machine/unattached/device[0]", "cpu-index": 0}
]
FILTERED = [
    {"cpuid-register": "EDX", "cpuid-input-ecx": 1, "cpuid-input-eax": 13, "features": 0},
    {"cpuid-register": "EBX", "cpuid-input-ecx": 0, "cpuid-input-eax": 7, "features": 65536},
    {"cpuid-register": "ECX", "cpuid-input-eax": 1, "features": 32},
]
FEATURES = [
    {"cpuid-register": "EBX", "cpuid-input-ecx": 0, "cpuid-input-eax": 7, "features": 0},
    {"cpuid-register": "ECX", "cpuid-input-eax": 2147483649, "features": 5},
    {"cpuid-register": "ECX", "cpuid-input-eax": 1, "features": 2147491841},
]


def test_a_command_is_one_line() -> None:
    line = qmp.encode("qom-get", 7, {"path": "/a\nb"})
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    assert json.loads(line) == {"execute": "qom-get", "id": 7, "arguments": {"path": "/a\nb"}}
    assert json.loads(qmp.encode("quit", 1)) == {"execute": "quit", "id": 1}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"QMP": {"version": {}, "capabilities": []}}\r\n', qmp.Greeting()),
        (b'{"event": "STOP", "timestamp": {}}', qmp.Event("STOP")),
        (b'{"return": {}, "id": 3}', qmp.Reply(3, {})),
        (b'{"return": true}', qmp.Reply(None, True)),
        (b'{"return": [], "id": "x"}', qmp.Reply(None, [])),
        (b'{"error": {"class": "GenericError", "desc": "no"}, "id": 2}', qmp.Refusal(2, "no")),
        (b'{"error": {"class": "GenericError", "desc": "no"}}', qmp.Refusal(None, "no")),
    ],
)
def test_what_qemu_says(line: bytes, message: qmp.Message) -> None:
    decoded = qmp.decode(line)
    assert (type(decoded), decoded) == (type(message), message)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\xff\xfe",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"QMP": 1}',
        b'{"event": 3}',
        b'{"error": "x"}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_qmp(line: bytes) -> None:
    with pytest.raises(Malformed):
        qmp.decode(line)


def test_the_first_vcpu() -> None:
    assert qmp.vcpu_path(CPUS) == "/machine/unattached/device[0]"


@pytest.mark.parametrize("cpus", [None, {}, [], [{}], [{"qom-path": 1}], "x"])
def test_no_vcpu(cpus: object) -> None:
    with pytest.raises(Malformed):
        qmp.vcpu_path(cpus)


def test_the_verdict() -> None:
    assert qmp.verdict({"vmx": False, "svm": True}, [], [], ()) == VcpuVerdict(True, (), ())
    dropped = ("avx512f", "vmx")
    got = qmp.verdict({"vmx": False, "svm": False}, FILTERED, FEATURES, ())
    assert got == VcpuVerdict(False, dropped, dropped)
    # A flag named in two words (as CPUID 1 and 0x80000001 share some) is told once.
    got = qmp.verdict({"svm": "yes"}, FILTERED[2:] * 2, FEATURES, ())
    assert got == VcpuVerdict(False, ("vmx",), ("vmx",))


def test_what_this_machine_has_and_nobody_asked_for_is_missing_too() -> None:
    host = ["fpu", "svm", "vmx", "pni", "cx16", "hypervisor", "lahf_lm", "sse4_1", "rep_good"]
    got = qmp.verdict({"svm": True}, FILTERED, FEATURES, host)
    assert got == VcpuVerdict(True, ("avx512f", "fpu", "sse4.1", "vmx"), ("avx512f", "vmx"))
    # `host` asks for nothing that KVM does not give, so that nothing is dropped.
    assert qmp.verdict({"svm": False}, [], FEATURES[2:], ["svm"]) == VcpuVerdict(False, ("svm",), ())


@pytest.mark.parametrize(
    "filtered",
    [
        None,
        [1],
        [{}],
        [{"cpuid-register": "EAX", "cpuid-input-eax": 1, "features": "all"}],
        [{"cpuid-register": "EAX", "cpuid-input-eax": 1, "features": 1 << 32}],
        [{"cpuid-register": "EAX", "cpuid-input-eax": 1, "features": -1}],
        [{"cpuid-register": "\x1b[31m", "cpuid-input-eax": 1, "features": 1}],
        [{"cpuid-register": "EAX", "cpuid-input-ecx": "x", "cpuid-input-eax": 1, "features": 1}],
        [
            {"cpuid-register": "EAX", "cpuid-input-eax": leaf, "features": (1 << 32) - 1}
            for leaf in range(100)
        ],
    ],
)
def test_no_verdict(filtered: object) -> None:
    with pytest.raises(Malformed, match="filtered-features"):
        qmp.verdict({"svm": True}, filtered, [], ())


@pytest.mark.parametrize("features", [None, {}, ["x"], [{"cpuid-register": "EAX", "cpuid-input-eax": 1}]])
def test_no_verdict_without_what_it_has(features: object) -> None:
    with pytest.raises(Malformed, match="feature-words"):
        qmp.verdict({"svm": True}, [], features, ())
