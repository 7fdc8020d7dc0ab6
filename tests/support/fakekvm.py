# SPDX-License-Identifier: LGPL-2.1-or-later
"""/dev/kvm of a tree: it offers what a kernel with those modules and parameters would."""

from __future__ import annotations

import errno

from nestd.model import Extension, KvmAnswer
from tests.support.tree import Tree

_DRIVERS = {"kvm_amd": Extension.SVM, "kvm_intel": Extension.VMX}


class FakeKvm:
    """Has the interface of nestd.host.kvm.Kvm. `refuse(EACCES)` makes the device answer so; 0 undoes it."""

    def __init__(self, tree: Tree) -> None:
        self._root = tree.root
        self._refusal = 0
        self.asked = 0

    def refuse(self, number: int) -> None:
        self._refusal = number

    def ask(self) -> KvmAnswer:
        self.asked += 1
        if self._refusal:
            return KvmAnswer(-1, self._refusal, frozenset())
        flags = (self._root.read("/proc/cpuinfo") or "").split()
        for driver, extension in _DRIVERS.items():
            # Built in, the other vendor's driver is there too, and does nothing on this CPU.
            if extension.value in flags and self._root.exists(f"/sys/module/{driver}"):
                nested = (self._root.read(f"/sys/module/{driver}/parameters/nested") or "").strip()
                return KvmAnswer(12, 0, frozenset() if nested in ("", "0", "N") else frozenset({extension}))
        if self._root.exists("/sys/module/kvm_hv"):
            on = (self._root.read("/sys/module/kvm_hv/parameters/nested") or "").strip() == "Y"
            return KvmAnswer(12, 0, frozenset({Extension.HV} if on else ()))
        if el2 := (self._root.read("/.kernel/el2") or "").strip():
            # What an arm64 kernel found at its start: "plain" EL2, or EL2 for guests too.
            return KvmAnswer(12, 0, frozenset({Extension.EL2} if el2 == "nested" else ()))
        if self._root.exists("/sys/module/kvm_pvm") or (
            "sie" in flags and self._root.exists("/sys/module/kvm")
        ):
            return KvmAnswer(12, 0, frozenset())
        return KvmAnswer(-1, errno.ENOENT, frozenset())
