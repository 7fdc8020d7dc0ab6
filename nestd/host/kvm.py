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

_GET_API_VERSION = 0xAE00
_GET_SUPPORTED_CPUID = 0xC008AE05
# The kernel's KVM_MAX_CPUID_ENTRIES: it takes no larger table (arch/x86/include/asm/kvm_host.h).
_ENTRIES = 256
_HEADER = struct.Struct("=II")  # struct kvm_cpuid2: nent, padding
_ENTRY = struct.Struct(
    "=7I12x"
)  # struct kvm_cpuid_entry2: function, index, flags, eax, ebx, ecx, edx, padding

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
    """The kernel's KVM, by its device."""

    def __init__(self, root: Root) -> None:
        self._root = root

    def ask(self) -> KvmAnswer:
        """Open /dev/kvm for a moment and ask. Never raises: what went wrong is the answer's `error`.

        Ask only where a driver is loaded or built in: udev makes a static node, and to open that
        makes the kernel load `kvm`. While it is open the driver's refcnt is one higher.
        `extensions` are empty, and `error` is 0, on all architectures but x86; with `api` told and
        `error` set, the table of CPUID could not be had.
        """
        try:
            device = os.open(self._root.path("/dev/kvm"), os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            return KvmAnswer(-1, error.errno or 0, frozenset())
        api = -1
        try:
            api = fcntl.ioctl(device, _GET_API_VERSION, 0)
            if os.uname().machine not in ("x86_64", "i686"):
                return KvmAnswer(api, 0, frozenset())
            table = bytearray(_HEADER.size + _ENTRIES * _ENTRY.size)
            _HEADER.pack_into(table, 0, _ENTRIES, 0)
            fcntl.ioctl(device, _GET_SUPPORTED_CPUID, table)
            return KvmAnswer(api, 0, decode_cpuid(bytes(table)))
        except OSError as error:
            return KvmAnswer(api, error.errno or 0, frozenset())
        finally:
            os.close(device)
