# SPDX-License-Identifier: LGPL-2.1-or-later
"""/dev/kvm itself: the ground truth of what a guest can get.

Source: Documentation/virt/kvm/api.rst (KVM_GET_API_VERSION, KVM_GET_SUPPORTED_CPUID). That of
KVM_CAP_NESTED_STATE is no proof: it is the same with nesting on and off.
"""

from __future__ import annotations

import fcntl
import os
import struct

from nestd.host.root import Root
from nestd.model import Extension, KvmAnswer

API_VERSION = 12  # of every KVM since Linux 2.6.22
_GET_API_VERSION = 0xAE00
_CHECK_EXTENSION = 0xAE03
_GET_SUPPORTED_CPUID = 0xC008AE05
# The kernel's KVM_MAX_CPUID_ENTRIES: it takes no larger table (arch/x86/include/asm/kvm_host.h).
_ENTRIES = 256
_HEADER = struct.Struct("=II")  # struct kvm_cpuid2: nent, padding
_ENTRY = struct.Struct(
    "=7I12x"
)  # struct kvm_cpuid_entry2: function, index, flags, eax, ebx, ecx, edx, padding

# Where a capability tells it (include/uapi/linux/kvm.h): KVM_CAP_ARM_EL2, since Linux 6.16, and
# KVM_CAP_PPC_NESTED_HV, both as the CPU and the driver's own switch have it.
_CAPABILITIES = {"aarch64": (Extension.EL2, 240), "ppc64le": (Extension.HV, 160)}
# CPUID leaf and the bit of its ECX.
_BITS = {Extension.VMX: (0x1, 5), Extension.SVM: (0x80000001, 2)}


def decode_cpuid(reply: bytes) -> frozenset[Extension]:
    """The extensions in a `struct kvm_cpuid2` as KVM_GET_SUPPORTED_CPUID fills it in.

    What is cut off in the middle of an entry is read as far as it goes.
    """
    if len(reply) < _HEADER.size:
        return frozenset()
    count, _ = _HEADER.unpack_from(reply)
    end = min(_HEADER.size + count * _ENTRY.size, len(reply))
    found = set()
    for offset in range(_HEADER.size, end - _ENTRY.size + 1, _ENTRY.size):
        function, _, _, _, _, ecx, _ = _ENTRY.unpack_from(reply, offset)
        found |= {name for name, (leaf, bit) in _BITS.items() if function == leaf and ecx >> bit & 1}
    return frozenset(found)


class Kvm:
    """The kernel's KVM, by its device. `machine` is what `uname -m` says."""

    def __init__(self, root: Root, machine: str = "") -> None:
        self._root = root
        self._machine = machine or os.uname().machine

    def ask(self) -> KvmAnswer:
        """Open /dev/kvm for a moment and ask. Never raises: what went wrong is the answer's `error`.

        Ask only where a driver is loaded or built in: udev makes a static node, and to open that
        makes the kernel load `kvm`. While it is open the driver's refcnt is one higher.
        `extensions` are empty, and `error` is 0, where KVM cannot be asked for them (s390x); with `api` told
        and `error` set, the table of CPUID could not be had.
        """
        try:
            device = os.open(self._root.path("/dev/kvm"), os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            return KvmAnswer(-1, error.errno or 0, frozenset())
        api = -1
        try:
            api = fcntl.ioctl(device, _GET_API_VERSION, 0)
            if self._machine in _CAPABILITIES:
                extension, capability = _CAPABILITIES[self._machine]
                has = fcntl.ioctl(device, _CHECK_EXTENSION, capability) > 0
                return KvmAnswer(api, 0, frozenset({extension} if has else ()))
            if self._machine not in ("x86_64", "i686"):
                return KvmAnswer(api, 0, frozenset())
            table = bytearray(_HEADER.size + _ENTRIES * _ENTRY.size)
            _HEADER.pack_into(table, 0, _ENTRIES, 0)
            fcntl.ioctl(device, _GET_SUPPORTED_CPUID, table)
            return KvmAnswer(api, 0, decode_cpuid(bytes(table)))
        except OSError as error:
            return KvmAnswer(api, error.errno or 0, frozenset())
        finally:
            os.close(device)
