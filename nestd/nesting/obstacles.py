# SPDX-License-Identifier: LGPL-2.1-or-later
"""What each obstacle means and what to do about it, for the person who reads it."""

from __future__ import annotations

from nestd.model import Obstacle, Status

_REMEDIES = {
    Obstacle.NO_EXTENSION: "the kernel sees no virtualization extension in this CPU. On bare metal, turn on VT-x "
    "or AMD-V (SVM) in the firmware's setup; in a virtual machine, have the outer hypervisor pass it on "
    "(QEMU and libvirt: CPU model host-passthrough)",
    Obstacle.FIRMWARE_DISABLED: "the firmware has the extension turned off. Turn on VT-x or AMD-V (SVM) in its setup",
    Obstacle.HIDDEN_BY_HYPERVISOR: "the outer hypervisor hides the extension. Its administrator must pass it on "
    "(QEMU and libvirt: CPU model host-passthrough)",
    Obstacle.DRIVER_MISSING: "this kernel has no module {driver}. Install the kernel package that carries it, or check "
    "that the modules of the running kernel ({driver} belongs to it) are still installed",
    Obstacle.DRIVER_WITHOUT_NESTING: "the KVM driver {driver} has no nested switch and offers guests no virtualization "
    "extension. A kernel whose driver is kvm_intel or kvm_amd is needed",
    Obstacle.MODULE_LOADING_DISABLED: "kernel.modules_disabled is 1: no module can be loaded or unloaded until the next "
    "boot. Change the setting for the boot (scope boot) and reboot",
    Obstacle.MODULE_SIGNATURE: "the kernel refuses the module's signature. Use the distribution's own kernel and modules",
    Obstacle.VT_HELD_BY_OTHER: "another hypervisor (VirtualBox, VMware) holds the extension. Stop its machines and "
    "unload its modules",
    Obstacle.KVM_UNUSABLE: "/dev/kvm is missing or does not answer as KVM. See `dmesg | grep -i kvm` for what {driver} said",
}


def remedy(status: Status) -> str:
    """The sentence for the status's obstacle; empty if nothing is in the way."""
    if status.obstacle is Obstacle.NONE:
        return ""
    return _REMEDIES[status.obstacle].format(driver=status.driver or "for KVM")
