# SPDX-License-Identifier: LGPL-2.1-or-later
"""What each obstacle code means to a person, and what that person can do about it."""

from __future__ import annotations

UNKNOWN = ("nestd names something that this nestctl does not know", "use the nestctl of nestd's own version")

#: code (the property Obstacle of data/org.nestd1.xml) → what it means, what to do
OBSTACLES = {
    "no-extension": (
        "the kernel sees no virtualization extension in this CPU",
        "turn on VT-x or AMD-V (SVM) in the firmware's setup; in a virtual machine, give it its host's CPU",
    ),
    "firmware-disabled": (
        "the firmware has switched the virtualization extension off",
        "turn on VT-x, AMD-V or SVM in the firmware's setup, then power the machine off and on",
    ),
    "hidden-by-hypervisor": (
        "this machine is itself a guest, and its hypervisor keeps the extension from it",
        "turn on nesting in the machine below, and give this guest the CPU of its host",
    ),
    "driver-missing": (
        "the running kernel has no KVM driver for this CPU",
        "install the package with the kernel's KVM modules; if the kernel was just upgraded, reboot",
    ),
    "driver-without-nesting": (
        "the KVM driver in charge has no switch for nesting",
        "use a kernel whose driver has one: kvm_intel, kvm_amd, kvm (s390x) or kvm_hv (ppc64le)",
    ),
    "module-loading-disabled": (
        "this kernel loads no more modules (kernel.modules_disabled is 1)",
        "set it for the next boot (nestctl enable --boot) and reboot",
    ),
    "module-signature": (
        "the kernel refuses the KVM module for its signature",
        "sign the module with a key that this machine trusts, or install the distribution's own kernel",
    ),
    "vt-held-by-other": (
        "another hypervisor, such as VirtualBox or VMware, holds the CPU's extension",
        "stop its virtual machines and unload its modules, then try again",
    ),
    "kvm-unusable": (
        "/dev/kvm is missing, or does not answer as KVM does",
        "read what the kernel says about it: journalctl -k -g kvm",
    ),
}


def explain(code: str) -> tuple[str, str]:
    """What an obstacle means and what to do about it, each as a clause without a full stop."""
    return OBSTACLES.get(code, UNKNOWN)
