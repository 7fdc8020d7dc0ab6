# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import pytest

from nestd.model import Extension
from nestd.text.domaincpu import domain_cpu


def test_a_model_gets_the_extension() -> None:
    assert domain_cpu("EPYC", ("+x2apic", "-aes"), Extension.SVM) == (
        "<cpu mode='custom' match='exact' check='partial'>\n"
        "  <model fallback='forbid'>EPYC</model>\n"
        "  <feature policy='require' name='svm'/>\n"
        "  <feature policy='require' name='x2apic'/>\n"
        "  <feature policy='disable' name='aes'/>\n"
        "</cpu>\n"
    )


@pytest.mark.parametrize(("cpu", "mode"), [("host", "host-passthrough"), ("max", "maximum")])
def test_this_machines_own_cpu_is_a_mode(cpu: str, mode: str) -> None:
    assert domain_cpu(cpu, (), Extension.VMX) == (
        f"<cpu mode='{mode}'>\n  <feature policy='require' name='vmx'/>\n</cpu>\n"
    )
    assert domain_cpu(cpu, (), Extension.NONE) == f"<cpu mode='{mode}'/>\n"


@pytest.mark.parametrize(
    ("features", "line"),
    [
        (("-svm",), "<feature policy='disable' name='svm'/>"),
        (("-svm", "+svm"), "<feature policy='disable' name='svm'/>"),
        (("+pclmulqdq",), "name='pclmuldq'"),
        (("+lahf-lm",), "name='lahf_lm'"),
        (("+lahf_lm",), "name='lahf_lm'"),
        (("-nrip-save",), "name='nrip-save'"),
    ],
)
def test_a_flag_taken_away_is_away_and_libvirts_names_are_used(features: tuple[str, ...], line: str) -> None:
    text = domain_cpu("host", features, Extension.SVM)
    assert text.count(line) == 1 and text.count("'svm'") == 1
