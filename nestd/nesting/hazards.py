# SPDX-License-Identifier: LGPL-2.1-or-later
"""What nesting is known not to get on with.

Sources: arch/s390/kvm/kvm-s390.c (kvm_s390_init: nested and hpage); Documentation/virt/kvm/x86/
running-nested-guests.rst (migration); KVM_GET_NESTED_STATE came with Linux 4.20 for Intel and 5.8 for AMD.
"""

from __future__ import annotations

from collections.abc import Iterator

from nestd.model import Check, Extension, Nesting, Verdict
from nestd.nesting.drivers import version
from nestd.nesting.status import Reading

_STATE_SINCE = {Extension.VMX: (4, 20), Extension.SVM: (5, 8)}


def checks(reading: Reading, hpage: str, release: str) -> Iterator[Check]:
    """`hazard-hpage` on s390x, `hazard-migration` on x86 while nesting is on."""
    status = reading.status
    if status.extension is Extension.SIE:
        yield _hpage(hpage, status.nested)
    since = _STATE_SINCE.get(status.extension)
    if since and status.nested is Nesting.ON:
        yield _migration(since, release)


def _hpage(hpage: str, nested: Nesting) -> Check:
    if hpage in ("", "0", "N"):
        told = "Guests are not backed with huge pages, so nesting may be on."
        return Check.passed("hazard-hpage", told)
    if nested is Nesting.ON:
        return Check.passed("hazard-hpage", "This kernel has both huge pages for guests and nesting.")
    return Check(
        "hazard-hpage",
        Verdict.WARN,
        f"kvm runs with hpage={hpage}: kernels before the end of 2025 do not load kvm with nested=1 as well.",
        "Decide for one of them: take hpage=1 out of /etc/modprobe.d and off the kernel command line to "
        "have nesting.",
    )


def _migration(since: tuple[int, int], release: str) -> Check:
    identity = "hazard-migration"
    if version(release) < since:
        return Check(
            identity,
            Verdict.WARN,
            f"This kernel ({release}) cannot save what a nested guest is doing (Linux {since[0]}.{since[1]} "
            "can): a guest that is migrated or saved while it runs guests of its own is likely to crash.",
            "Stop the guests inside a guest before it is migrated, saved or snapshotted with its memory.",
        )
    return Check.passed(
        identity,
        "This kernel can save what nested guests are doing. Whether a guest that runs guests can be "
        "migrated depends on QEMU, CPU and kernel on both sides: try it before you rely on it.",
    )
