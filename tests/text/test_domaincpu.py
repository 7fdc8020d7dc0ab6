# SPDX-License-Identifier: LGPL-2.1-or-later
"""The element itself, and what the real libvirt and the real QEMU know."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from nestd.model import Extension
from nestd.text.domaincpu import domain_cpu, unknown

LIBVIRT = Path("/usr/share/libvirt")
DOMAIN = """<domain type='kvm'>
  <name>demo</name>
  <memory>65536</memory>
  <os><type arch='x86_64'>hvm</type></os>
  {}
</domain>
"""


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
        f"<cpu mode='{mode}' check='full'>\n  <feature policy='require' name='vmx'/>\n</cpu>\n"
    )
    assert domain_cpu(cpu, (), Extension.NONE) == f"<cpu mode='{mode}' check='full'/>\n"


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


def known(file: str, tag: str) -> set[str]:
    """The names of elements in libvirt's map of x86 CPUs."""
    found = ElementTree.parse(LIBVIRT / "cpu_map" / file).iter(tag)
    return {element.attrib["name"] for element in found}


def known_models() -> set[str]:
    return {name for path in (LIBVIRT / "cpu_map").glob("x86_*.xml") for name in known(path.name, "model")}


def qemu_knows() -> tuple[set[str], set[str]]:
    """The models and the flags of the QEMU that is installed."""
    done = subprocess.run(["qemu-system-x86_64", "-cpu", "help"], capture_output=True, text=True, check=True)
    models, _, flags = done.stdout.partition("Recognized CPUID flags:")
    return set(re.findall(r"^x86 (\S+)", models, re.MULTILINE)), set(flags.split())


def test_what_libvirt_does_not_know_is_told() -> None:
    models, flags = qemu_knows()
    assert {"EPYC", "EPYC-v3", "host"} <= models and {"svm", "kvm-pv-eoi"} <= flags
    for model in models - {"host", "max"}:
        assert unknown(model, ()) == (() if model in known_models() else (model,)), model
    assert unknown("host", ()) == unknown("max", ()) == ()
    names = known("x86_features.xml", "feature")
    for flag in flags:
        [name] = re.findall("require' name='(.*)'", domain_cpu("host", (f"+{flag}",), Extension.NONE))
        assert unknown("host", (f"-{flag}",)) == (() if name in names else (name,)), flag
    assert unknown("EPYC-v1", ("+kvm_pv_eoi", "-aes", "-kvm-pv-eoi")) == ("EPYC-v1", "kvm-pv-eoi")


def test_every_other_name_that_qemu_has_for_a_flag_becomes_libvirts() -> None:
    features = ElementTree.parse(LIBVIRT / "cpu_map/x86_features.xml").iter("feature")
    aliases = [
        (feature.attrib["name"], alias.attrib["name"])
        for feature in features
        for alias in feature.iter("alias")
        if alias.attrib["source"] == "qemu"
    ]
    assert len(aliases) > 20
    for name, alias in aliases:
        assert f" name='{name}'/>" in domain_cpu("host", (f"+{alias}",), Extension.NONE)


@pytest.mark.parametrize("cpu", ["host", "max", "EPYC", "EPYC-v3"])
@pytest.mark.parametrize("features", [(), ("-svm", "+sse4_1", "-avx512-vpopcntdq")])
def test_libvirts_schema_takes_it(tmp_path: Path, cpu: str, features: tuple[str, ...]) -> None:
    domain = tmp_path / "domain.xml"
    domain.write_text(DOMAIN.format(domain_cpu(cpu, features, Extension.SVM)))
    command = ["xmllint", "--noout", "--relaxng", str(LIBVIRT / "schemas/domain.rng"), str(domain)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # And would not take what it does not know.
    domain.write_text(domain.read_text().replace("<cpu mode=", "<cpu moode="))
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0
