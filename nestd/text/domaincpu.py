# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest's CPU as libvirt's domain XML has it: the same as QEMU's -cpu in nestd's text/qemu.py.

Sources: formatdomain.html of libvirt, CPU model and topology; its src/cpu_map, of 9.0. What is checked is in
virCPUx86UpdateLive of src/cpu/cpu_x86.c and in qemuDomainDefCPUPostParse (src/qemu): host-passthrough is not
by default, and with check='full' the domain is not started where QEMU dropped a flag; what this machine's CPU
has besides does not matter. A model is held against what QEMU can give here (check='partial'): 'full' would
refuse what QEMU adds to it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from nestd.model import Extension

# By QEMU's name, with "-" for "_": libvirt's, where it is another one.
_LIBVIRT = {
    "pclmulqdq": "pclmuldq",
    "ffxsr": "fxsr_opt",
    "i64": "lm",
    "sse3": "pni",
    "sse4-1": "sse4.1",
    "sse4-2": "sse4.2",
    "xd": "nx",
    **{
        name.replace("_", "-"): name
        for name in (
            "cmp_legacy",
            "ds_cpl",
            "fxsr_opt",
            "lahf_lm",
            "nodeid_msr",
            "perfctr_core",
            "perfctr_nb",
            "tsc_adjust",
        )
    },
}
_MODES = {"host": "host-passthrough", "max": "maximum"}
_UNKNOWN_MODEL = re.compile(r".*-v[0-9]+|base|Denverton|KnightsMill")
# Those of KVM itself, which libvirt has elsewhere if at all; the parts of VMX; those of VIA's CPUs.
_UNKNOWN_FLAG = re.compile(r"kvm.*|vmx-.*|(ace2|phe|pmm|xcrypt|xstore)(-en)?|full-width-write")


def domain_cpu(cpu: str, features: Sequence[str], extension: Extension) -> str:
    """The element <cpu>, which requires the extension unless `features` takes it away.

    `cpu` is `host` or a QEMU model, each of `features` is "+flag" or "-flag" by QEMU's name: all checked by
    guests/request.py, so that there is nothing to quote. "-" beats "+", whatever the order, as in QEMU.
    """
    wanted = {extension.value: "require"} if extension is not Extension.NONE else {}
    for feature in sorted(features, key=lambda feature: feature[0] == "-"):
        wanted[_name(feature)] = "disable" if feature[0] == "-" else "require"
    if cpu in _MODES:
        opening, model = f"<cpu mode='{_MODES[cpu]}' check='full'", ""
    else:
        opening = "<cpu mode='custom' match='exact' check='partial'"
        model = f"  <model fallback='forbid'>{cpu}</model>\n"
    lines = "".join(f"  <feature policy='{policy}' name='{name}'/>\n" for name, policy in wanted.items())
    return f"{opening}>\n{model}{lines}</cpu>\n" if model or lines else f"{opening}/>\n"


def unknown(cpu: str, features: Sequence[str]) -> tuple[str, ...]:
    """The model and the flags that libvirt 9.0 does not know, and so refuses; newer ones may."""
    model = (cpu,) if _UNKNOWN_MODEL.fullmatch(cpu) else ()
    flags = dict.fromkeys(_name(feature) for feature in features)
    return (*model, *(flag for flag in flags if _UNKNOWN_FLAG.fullmatch(flag)))


def _name(feature: str) -> str:
    flag = feature[1:].replace("_", "-")
    return _LIBVIRT.get(flag, flag)
