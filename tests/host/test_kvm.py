# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestd.host.kvm import Kvm, decode_cpuid
from nestd.host.root import Root
from nestd.model import Extension, KvmAnswer

# (function, index, flags, eax, ebx, ecx, edx). The ecx of 0x80000001 is what kvm_amd of 6.1 gave with
# nested=1 and with nested=0.
VENDOR = (0x0, 0, 0, 0xD, 0x68747541, 0x444D4163, 0x69746E65)
FEATURES = (0x1, 0, 0, 0x800F12, 0x100800, 0xF6D83203, 0x178BFBFF)
WITH_SVM = (0x80000001, 0, 0, 0x800F12, 0, 0x77, 0x2FD3FBFF)
WITHOUT_SVM = (0x80000001, 0, 0, 0x800F12, 0, 0x73, 0x2FD3FBFF)
WITH_VMX = (0x1, 0, 0, 0x306C3, 0x800, 0xF7FA3223 | 1 << 5, 0xF8BFBFF)
LEAF_7 = (0x7, 0, 1, 0, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF)


def table(*entries: tuple[int, ...], count: int | None = None) -> bytes:
    packed = b"".join(struct.pack("=7I", *entry) + bytes(12) for entry in entries)
    return struct.pack("=II", len(entries) if count is None else count, 0) + packed


@pytest.mark.parametrize(
    ("reply", "wanted"),
    [
        (table(VENDOR, FEATURES, WITH_SVM), {Extension.SVM}),
        (table(VENDOR, FEATURES, WITHOUT_SVM), set()),
        (table(VENDOR, WITH_VMX, LEAF_7, WITHOUT_SVM), {Extension.VMX}),
        (table(WITH_VMX, WITH_SVM), {Extension.VMX, Extension.SVM}),
        (table(LEAF_7), set()),
        (table(), set()),
        (b"", set()),
        (b"\1\0\0", set()),
        # The kernel says how many it filled in; what is behind is not its answer.
        (table(VENDOR, WITH_SVM, count=1), set()),
        (table(WITH_SVM, VENDOR, count=1000), {Extension.SVM}),
        (table(VENDOR, WITH_SVM)[:-1], set()),
    ],
)
def test_decode_cpuid(reply: bytes, wanted: set[Extension]) -> None:
    assert decode_cpuid(reply) == wanted


@given(st.binary(max_size=200))
def test_no_reply_is_an_error(reply: bytes) -> None:
    assert decode_cpuid(reply) <= {Extension.VMX, Extension.SVM}


def test_no_device(tmp_path: Path) -> None:
    assert Kvm(Root(str(tmp_path))).ask() == KvmAnswer(-1, errno.ENOENT, frozenset())


def test_what_is_no_kvm(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/kvm").write_text("")
    assert Kvm(Root(str(tmp_path))).ask() == KvmAnswer(-1, errno.ENOTTY, frozenset())


def test_this_machine() -> None:
    """Whatever it has: the answer fits the device and the drivers."""
    answer = Kvm(Root()).ask()
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        assert (answer.api, answer.error) == (12, 0)
    else:
        assert answer.api == -1 and answer.error != 0
    if not any(Path(f"/sys/module/{driver}").exists() for driver in ("kvm_intel", "kvm_amd")):
        assert answer.extensions == frozenset()
