# SPDX-License-Identifier: LGPL-2.1-or-later
"""What each obstacle means to a person, and what that person can do about it."""

from __future__ import annotations

from types import MappingProxyType

from nestd.model import Obstacle

# What it means, what to do: each a clause without a full stop. {driver} is the driver's name.
_WORDS = MappingProxyType(
    {
        Obstacle.NO_EXTENSION: (
            "the kernel sees no virtualization extension in this CPU",
            "turn on VT-x or AMD-V in the firmware's setup; in a virtual machine, give it its host's CPU",
        ),
        Obstacle.FIRMWARE_DISABLED: (
            "the firmware has switched the virtualization extension off",
            "turn on VT-x or AMD-V (SVM) in the firmware's setup, then power the machine off and on",
        ),
        Obstacle.HIDDEN_BY_HYPERVISOR: (
            "this machine is itself a guest, and its hypervisor keeps the extension from it",
            "turn on nesting in the machine below, and give this guest the CPU of its host",
        ),
        Obstacle.DRIVER_MISSING: (
            "the running kernel has no module {driver}",
            "install the package with the kernel's KVM modules; if the kernel was just upgraded, reboot",
        ),
        Obstacle.DRIVER_WITHOUT_NESTING: (
            "the KVM driver in charge, {driver}, has no switch for nesting and offers guests no extension",
            "use a kernel whose driver has one: kvm_intel, kvm_amd, kvm (s390x) or kvm_hv (ppc64le)",
        ),
        Obstacle.MODULE_LOADING_DISABLED: (
            "this kernel loads and unloads no more modules (kernel.modules_disabled is 1)",
            "set it for the next boot (scope boot) and reboot",
        ),
        Obstacle.MODULE_SIGNATURE: (
            "the kernel refuses the signature of the module {driver}",
            "sign the module with a key that this machine trusts, or install the distribution's own kernel",
        ),
        Obstacle.VT_HELD_BY_OTHER: (
            "another hypervisor, such as VirtualBox or VMware, holds the CPU's extension",
            "stop its virtual machines and unload its modules, then try again",
        ),
        Obstacle.KVM_UNUSABLE: (
            "/dev/kvm is missing, or does not answer as KVM does",
            "read what the kernel says about it: journalctl -k -g kvm",
        ),
    }
)


def meaning(obstacle: Obstacle, driver: str) -> str:
    """What is in the way, as a clause; empty if nothing is. `driver` is the driver's name, or empty."""
    return _word(obstacle, driver, 0)


def remedy(obstacle: Obstacle, driver: str) -> str:
    """What to do about it, as a clause; empty if nothing is in the way."""
    return _word(obstacle, driver, 1)


def sentence(obstacle: Obstacle, driver: str) -> str:
    """Both, to stand behind a colon. `obstacle` is not NONE."""
    return f"{meaning(obstacle, driver)}. To do: {remedy(obstacle, driver)}."


def _word(obstacle: Obstacle, driver: str, which: int) -> str:
    if obstacle is Obstacle.NONE:
        return ""
    return _WORDS[obstacle][which].format(driver=driver or "for KVM")
