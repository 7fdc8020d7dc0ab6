# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import pytest

from nestd.model import Extension
from nestd.text import cpuinfo
from tests.support import tree

S390 = "vendor_id       : IBM/S390\nfeatures\t: esan3 zarch stfle msa edat sie\nprocessor 0: version = 00\n"
POWERNV = "processor\t: 0\ncpu\t\t: POWER9, altivec supported\n\nplatform\t: PowerNV\n"
PSERIES = "processor\t: 0\n\nplatform\t: pSeries\nmachine\t\t: CHRP IBM pSeries\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd evtstrm aes\nCPU implementer\t: 0x41\nCPU architecture: 8\n"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (tree.cpuinfo("GenuineIntel", "fpu vmx sse"), {Extension.VMX}),
        (tree.cpuinfo("AuthenticAMD", "fpu svm sse"), {Extension.SVM}),
        (tree.cpuinfo("HygonGenuine", "svm"), {Extension.SVM}),
        (tree.cpuinfo("  Shanghai  ", "fpu vmx"), {Extension.VMX}),
        (tree.cpuinfo("GenuineIntel", "fpu hypervisor vmx_like nosvm"), set()),
        ((tree.CAPTURES / "cpuinfo-pvm").read_text(), set()),
        (S390, {Extension.SIE}),
        (POWERNV, {Extension.HV}),
        (PSERIES, set()),
        (ARM, set()),
        ("", set()),
        ("flags", set()),
        ("flags\t\t: fpu svm", {Extension.SVM}),
        ("flags\t\t:\n", set()),
        ("vmx flags\t: vnmi ept svm\n", set()),
        ("model name\t: flags : svm\n", set()),
        ("flags\t\t: \udcff svm\n", {Extension.SVM}),
    ],
)
def test_extensions(text: str, wanted: set[Extension]) -> None:
    assert cpuinfo.extensions(text) == wanted


def test_flags_are_those_of_the_boot_cpu() -> None:
    text = "flags\t: fpu svm\n\nprocessor\t: 1\nflags\t: fpu vmx\n"
    assert cpuinfo.flags(text) == {"fpu", "svm"}


def test_flags_of_a_captured_machine() -> None:
    flags = cpuinfo.flags((tree.CAPTURES / "cpuinfo-pvm").read_text())
    assert {"fpu", "hypervisor", "arch_capabilities"} <= flags
    assert "vmx" not in flags


def test_flags_of_vmx_itself() -> None:
    text = "flags\t: fpu vmx ept\nvmx flags\t: vnmi ept vpid shadow_vmcs\nbugs\t:\n"
    assert cpuinfo.vmx_flags(text) == {"vnmi", "ept", "vpid", "shadow_vmcs"}
    assert cpuinfo.vmx_flags("flags\t: fpu vmx\n") == set()


def test_kinds_of_machine() -> None:
    assert [cpuinfo.is_arm64(text) for text in (ARM, PSERIES, S390, "")] == [True, False, False, False]
    assert [cpuinfo.is_pseries(text) for text in (PSERIES, POWERNV, ARM, "")] == [True, False, False, False]


def test_the_model_is_what_the_first_cpu_calls_itself() -> None:
    text = "processor\t: 0\nmodel\t\t: 1\nmodel name\t: AMD EPYC 7763 \n\nmodel name\t: another\n"
    assert cpuinfo.model(text) == "AMD EPYC 7763"
    assert cpuinfo.model("model\t\t: 158\n") == cpuinfo.model("") == ""
