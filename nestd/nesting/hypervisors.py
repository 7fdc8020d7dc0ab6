# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a machine can run in, and what has to be set there so that it gets the extension.

Keyed by systemd-detect-virt's words for virtual machines (systemd-detect-virt(1)), refined by what
the firmware's tables say of clouds, which share a hypervisor's word.

Sources: libvirt's formatdomain; Documentation/virt/kvm/x86/running-nested-guests.rst; Microsoft's "Nested
virtualization", and "Advanced settings configuration in WSL"; VMware KB 2009916 (vhv.enable); the VirtualBox
manual (VBoxManage modifyvm); xl.cfg(5); Amazon's "Use nested virtualization to run hypervisors in Amazon EC2
instances"; Google's "About nested virtualization"; Apple's VZGenericPlatformConfiguration.
"""

from __future__ import annotations

from types import MappingProxyType

from nestd.host.root import Root

UNKNOWN = "unknown"
DOM0 = "xen-dom0"

_KVM = (
    "on the host, turn nesting on (`nestctl enable`, or nested=1 for kvm_intel or kvm_amd) and give this "
    "guest the host's CPU (QEMU: -cpu host; libvirt: <cpu mode='host-passthrough'/>), then power this guest "
    "off and on"
)
_QEMU = "add +svm to its -cpu option (its emulated CPUs have no VMX), or give it KVM and -cpu host"
_OPENSTACK = (
    "its operator sets cpu_mode = host-passthrough under [libvirt] in nova.conf, and turns nesting on in "
    "the compute host's KVM driver"
)
_AMAZON = (
    "stop the instance and turn on its CPU option nested virtualization (C8i, M8i, R8i and other types that "
    "have it among their features), or take a bare-metal type"
)
_GOOGLE = (
    "set advancedMachineFeatures.enableNestedVirtualization to true for this instance (gcloud: "
    "--enable-nested-virtualization) and restart it; not every machine type has it"
)
_AZURE = (
    "take a VM size whose documentation says that nested virtualization is supported (Dv3 and Ev3 were the "
    "first)"
)
_WSL = (
    "set nestedVirtualization=true under [wsl2] in %UserProfile%\\.wslconfig (Windows 11), then run `wsl "
    "--shutdown`"
)
_HYPER_V = (
    "with this machine off, run `Set-VMProcessor -VMName NAME -ExposeVirtualizationExtensions $true` on the "
    "Hyper-V host"
)
_VMWARE = (
    'with this machine off, set vhv.enable = "TRUE" in its .vmx file (vSphere: CPU, "Expose hardware '
    'assisted virtualization to the guest OS")'
)
_DOM0 = (
    "Xen keeps the extension for itself: boot this system without Xen to use KVM, or run guests with Xen's "
    "own tools"
)
_APPLE = (
    "its application has to ask for nested virtualization, which takes an M3 or later and macOS 15 or later"
)
_PROVIDER = "whether and how it passes the extension on, only its administrator can say"
_TABLE = MappingProxyType(
    {
        "kvm": ("KVM", _KVM),
        "qemu": ("QEMU without KVM", _QEMU),
        "openstack": ("OpenStack", _OPENSTACK),
        "amazon": ("Amazon EC2", _AMAZON),
        "google": ("Google Compute Engine", _GOOGLE),
        "azure": ("Microsoft Azure", _AZURE),
        "wsl": ("WSL 2", _WSL),
        "microsoft": ("Hyper-V", _HYPER_V),
        "vmware": ("VMware", _VMWARE),
        "oracle": ("VirtualBox", "with this machine off, run `VBoxManage modifyvm NAME --nested-hw-virt on`"),
        "xen": (
            "Xen",
            "set nestedhvm=1 and hap=1 in the xl configuration of this guest, which must be an HVM guest",
        ),
        DOM0: ("Xen, as its dom0", _DOM0),
        "parallels": (
            "Parallels",
            "with this machine off, turn on nested virtualization in its CPU's settings",
        ),
        "bhyve": ("bhyve", "bhyve gives its guests no nested virtualization: take another hypervisor"),
        "powervm": (
            "PowerVM",
            "its administrator has to allow KVM in this partition, if the machine supports that",
        ),
        "zvm": ("z/VM", "its administrator has to let this guest have the SIE facility"),
        "apple": ("Apple's Virtualization framework", _APPLE),
        UNKNOWN: ("a hypervisor that cannot be named", _PROVIDER),
    }
)
_AZURE_TAG = "7783-7084-3265-9085-8269-3286-77"


def name(word: str) -> str:
    """What a person calls it; the word itself where the table does not know it."""
    return _TABLE[word][0] if word in _TABLE else word


def remedy(word: str) -> str:
    """What has to be set there, as a clause."""
    return _TABLE[word][1] if word in _TABLE else _PROVIDER


def refine(root: Root, virtualization: str, machine: str, flags: frozenset[str]) -> str:
    """The key of what this machine runs in; "" where it is no guest.

    `virtualization` is systemd-detect-virt's word, `machine` its word with --vm (containers left out);
    `flags` are the CPU's: on x86 every hypervisor that does not hide sets `hypervisor`.
    """
    if machine in ("", "none"):
        if (root.read("/sys/hypervisor/type") or "").strip() == "xen":
            return DOM0
        return UNKNOWN if "hypervisor" in flags else ""
    return "wsl" if virtualization == "wsl" else _cloud(root, machine) or machine


def _cloud(root: Root, machine: str) -> str:
    """The cloud that the firmware's tables name, "" if none: as cloud-init tells them."""
    vendor, product, tag = (
        (root.read(f"/sys/class/dmi/id/{entry}") or "").strip()
        for entry in ("sys_vendor", "product_name", "chassis_asset_tag")
    )
    if machine == "microsoft":
        return "azure" if tag == _AZURE_TAG else ""
    if product.startswith("OpenStack"):
        return "openstack"
    return {"Google": "google", "Amazon EC2": "amazon", "OpenStack Foundation": "openstack"}.get(vendor, "")
