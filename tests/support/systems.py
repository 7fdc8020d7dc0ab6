# SPDX-License-Identifier: LGPL-2.1-or-later
"""Systems that cannot be had where the tests run, as trees: what their /proc and /sys say.

Each function takes an empty tree and gives it back built. The texts follow the kernel's own functions
that print them (arch/*/kernel/cpu/proc.c, setup_cpu.c, processor.c, cpuinfo.c).
"""

from __future__ import annotations

from tests.support.tree import AMD_FLAGS, COMMON_FLAGS, INTEL_FLAGS, Tree, cpuinfo

_AZURE = "7783-7084-3265-9085-8269-3286-77"


def hygon(tree: Tree) -> Tree:
    """A Dhyana: an AMD by all but its name."""
    return tree.write("/proc/cpuinfo", cpuinfo("HygonGenuine", AMD_FLAGS)).x86().module("kvm_amd", refcnt=0)


def zhaoxin(tree: Tree, vendor: str = "  Shanghai  ") -> Tree:
    """Zhaoxin, and Centaur ("CentaurHauls"): VMX, driven by kvm_intel."""
    return tree.write("/proc/cpuinfo", cpuinfo(vendor, INTEL_FLAGS)).x86().module("kvm_intel")


def s390x(
    tree: Tree, features: str = "esan3 zarch stfle msa ldisp eimm dfp edat etf3eh highgprs te sie"
) -> Tree:
    """An LPAR of IBM Z; without `sie` a guest of z/VM, or of a KVM without nesting."""
    text = (
        "vendor_id       : IBM/S390\n# processors    : 2\nbogomips per cpu: 3033.00\n"
        f"max thread id   : 0\nfeatures\t: {features}\nfacilities      : 0 1 2 3 4 6 7\n"
    )
    return tree.write("/proc/cpuinfo", text).loadable("kvm", nested="0", hpage="0", halt_poll_ns="50000")


def ppc64le(tree: Tree, platform: str = "PowerNV") -> Tree:
    """POWER9, on bare metal (PowerNV) or below a hypervisor (pSeries)."""
    text = (
        "processor\t: 0\ncpu\t\t: POWER9, altivec supported\nclock\t\t: 2166.000000MHz\n"
        f"revision\t: 2.2 (pvr 004e 1202)\n\ntimebase\t: 512000000\nplatform\t: {platform}\n"
    )
    return tree.write("/proc/cpuinfo", text).loadable("kvm").loadable("kvm_hv", needs=("kvm",), nested="Y")


def arm64(tree: Tree, el2: str = "plain") -> Tree:
    """arm64, its KVM in the kernel; `el2` is what that found: "", "plain", or "nested" for guests too."""
    text = (
        "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid\n"
        "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x3\nCPU part\t: 0xd40\n"
    )
    tree.write("/proc/cpuinfo", text).builtin("kvm", halt_poll_ns="500000")
    return tree.write("/.kernel/el2", el2)


def guest(tree: Tree, vendor: str = "", product: str = "", tag: str = "") -> Tree:
    """A virtual machine on Intel whose hypervisor keeps vmx for itself; the strings are the firmware's."""
    flags = f"{INTEL_FLAGS.replace(' vmx', '').replace(' ept vpid', '')} hypervisor"
    tree.write("/proc/cpuinfo", cpuinfo("GenuineIntel", flags)).x86()
    for entry, text in (("sys_vendor", vendor), ("product_name", product), ("chassis_asset_tag", tag)):
        tree.write(f"/sys/class/dmi/id/{entry}", text + "\n")
    return tree


def azure(tree: Tree) -> Tree:
    return guest(tree, "Microsoft Corporation", "Virtual Machine", _AZURE)


def wsl2(tree: Tree, nested: bool = True) -> Tree:
    """WSL 2: its kernel has KVM built in; whether there is vmx, .wslconfig says."""
    if not nested:
        return guest(tree).builtin("kvm").builtin("kvm_intel").gone("/sys/module/kvm_intel/parameters")
    tree.write("/proc/cpuinfo", cpuinfo("GenuineIntel", f"{INTEL_FLAGS} hypervisor")).x86()
    return tree.builtin("kvm").builtin("kvm_intel")


def xen_guest(tree: Tree) -> Tree:
    """An HVM guest of Xen."""
    return guest(tree, "Xen", "HVM domU").write("/sys/hypervisor/type", "xen\n")


def xen_dom0(tree: Tree) -> Tree:
    """The system that administers Xen: systemd-detect-virt says "none" there."""
    flags = f"{COMMON_FLAGS} ssse3 hypervisor"
    tree.write("/proc/cpuinfo", cpuinfo("GenuineIntel", flags)).x86()
    return tree.write("/sys/hypervisor/type", "xen\n").write("/proc/xen/capabilities", "control_d\n")


def firmware_off(tree: Tree) -> Tree:
    """An Intel whose firmware has VT-x off: the kernel takes vmx away."""
    return tree.intel(flags=f"{COMMON_FLAGS} ssse3 sse4_1 sse4_2")
