# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest's CPU as libvirt's domain XML has it: the same as QEMU's -cpu in nestd's text/qemu.py.

Sources: formatdomain.html of libvirt, CPU model and topology; virQEMUCapsCPUFeaturesX86 in its
src/qemu/qemu_capabilities.c.
"""

from __future__ import annotations

from collections.abc import Sequence

from nestd.model import Extension

# By QEMU's name, with "_" for "-": libvirt's name where it is another one.
_LIBVIRT = {
    "pclmulqdq": "pclmuldq",
    **{
        name: name
        for name in (
            "cmp_legacy",
            "ds_cpl",
            "fxsr_opt",
            "kvm_pv_eoi",
            "kvm_pv_unhalt",
            "lahf_lm",
            "nodeid_msr",
            "perfctr_core",
            "perfctr_nb",
            "tsc_adjust",
        )
    },
}
_MODES = {"host": "host-passthrough", "max": "maximum"}


def domain_cpu(cpu: str, features: Sequence[str], extension: Extension) -> str:
    """The element <cpu>, which requires the extension unless `features` takes it away.

    `cpu` is `host` or a QEMU model, each of `features` is "+flag" or "-flag" by QEMU's name: all checked by
    guests/request.py, so that there is nothing to quote. "-" beats "+", whatever the order, as in QEMU.
    """
    wanted = {extension.value: "require"} if extension is not Extension.NONE else {}
    for feature in sorted(features, key=lambda feature: feature[0] == "-"):
        wanted[_name(feature[1:])] = "disable" if feature[0] == "-" else "require"
    if cpu in _MODES:
        opening, model = f"<cpu mode='{_MODES[cpu]}'", ""
    else:
        opening = "<cpu mode='custom' match='exact' check='partial'"
        model = f"  <model fallback='forbid'>{cpu}</model>\n"
    lines = "".join(f"  <feature policy='{policy}' name='{name}'/>\n" for name, policy in wanted.items())
    return f"{opening}>\n{model}{lines}</cpu>\n" if model or lines else f"{opening}/>\n"


def _name(flag: str) -> str:
    return _LIBVIRT.get(flag.replace("-", "_"), flag)
