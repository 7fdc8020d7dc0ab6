# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs in a machine: a guest of a few instructions straight on /dev/kvm tells whether it has the extension.

It is given all that KVM_GET_SUPPORTED_CPUID offers. It asks CPUID, then tries to switch the extension on
(CR4.VMXE on Intel, EFER.SVME on AMD), which without the extension is a #GP. Nothing of nestd is used.
Sources: Documentation/virt/kvm/api.rst; Intel SDM 3A 2.5 (CR4); AMD APM 2, 15.4 (EFER.SVME).
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
from pathlib import Path

_CREATE_VM, _VCPU_MMAP_SIZE, _SUPPORTED_CPUID = 0xAE01, 0xAE04, 0xC008AE05
_CREATE_VCPU, _SET_MEMORY, _SET_TSS_ADDR = 0xAE41, 0x4020AE46, 0xAE47
_RUN, _SET_REGS, _GET_SREGS, _SET_SREGS, _SET_CPUID2 = 0xAE80, 0x4090AE82, 0x8138AE83, 0x4138AE84, 0x4008AE90
_EXIT_IO, _EXIT_HLT = 2, 5
_MEMORY, _CODE, _HANDLER = 0x10000, 0x1000, 0x1100
_GP_VECTOR = 0x34  # interrupt 13 of real mode: offset, segment
_ENTRIES = 256
_IN_CPUID, _SWITCHED_ON = 0x10, 0x11  # ports

# Real mode: CPUID's bit to one port, then the attempt, and 1 to the other port if it is lived through.
_TELL = bytes.fromhex("80e101 88c8 e610")  # and cl,1; mov al,cl; out 0x10,al
_LIVED = bytes.fromhex("b001 e611 f4")  # mov al,1; out 0x11,al; hlt
_FAULTED = bytes.fromhex("b000 e611 f4")  # mov al,0; out 0x11,al; hlt
_PROGRAMS = {
    # mov eax,1; cpuid; shr ecx,5 … mov eax,cr4; or eax,CR4.VMXE; mov cr4,eax
    "vmx": bytes.fromhex("66b801000000 0fa2 66c1e905")
    + _TELL
    + bytes.fromhex("0f20e0 660d00200000 0f22e0")
    + _LIVED,
    # mov eax,0x80000001; cpuid; shr ecx,2 … mov ecx,EFER; rdmsr; or eax,EFER.SVME; wrmsr
    "svm": bytes.fromhex("66b801000080 0fa2 66c1e902")
    + _TELL
    + bytes.fromhex("66b9800000c0 0f32 660d00100000 0f30")
    + _LIVED,
}


def probe(extension: str) -> dict[int, int]:
    """Run the guest; returns what it wrote to which port."""
    kvm = os.open("/dev/kvm", os.O_RDWR)
    machine = fcntl.ioctl(kvm, _CREATE_VM, 0)
    fcntl.ioctl(machine, _SET_TSS_ADDR, _MEMORY)  # beside the memory, for CPUs that need it
    memory = mmap.mmap(-1, _MEMORY)
    memory[_CODE : _CODE + len(_PROGRAMS[extension])] = _PROGRAMS[extension]
    memory[_HANDLER : _HANDLER + len(_FAULTED)] = _FAULTED
    memory[_GP_VECTOR : _GP_VECTOR + 4] = struct.pack("<HH", _HANDLER, 0)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    fcntl.ioctl(machine, _SET_MEMORY, struct.pack("<IIQQQ", 0, 0, 0, _MEMORY, address))
    cpu = fcntl.ioctl(machine, _CREATE_VCPU, 0)
    offered = bytearray(struct.pack("<II", _ENTRIES, 0) + bytes(40 * _ENTRIES))
    fcntl.ioctl(kvm, _SUPPORTED_CPUID, offered)
    fcntl.ioctl(cpu, _SET_CPUID2, offered)  # the kernel has put in how many there are
    segments = bytearray(0x138)
    fcntl.ioctl(cpu, _GET_SREGS, segments)
    struct.pack_into("<Q", segments, 0, 0)  # cs.base
    struct.pack_into("<H", segments, 12, 0)  # cs.selector
    fcntl.ioctl(cpu, _SET_SREGS, bytes(segments))
    registers = [0] * 18
    registers[6], registers[16], registers[17] = 0x8000, _CODE, 2  # rsp, rip, rflags
    fcntl.ioctl(cpu, _SET_REGS, struct.pack("<18Q", *registers))
    state = mmap.mmap(cpu, fcntl.ioctl(kvm, _VCPU_MMAP_SIZE, 0))
    return _run(cpu, state)


def _run(cpu: int, state: mmap.mmap) -> dict[int, int]:
    written: dict[int, int] = {}
    while True:
        fcntl.ioctl(cpu, _RUN, 0)
        (reason,) = struct.unpack_from("<I", state, 8)
        if reason == _EXIT_HLT:
            return written
        if reason != _EXIT_IO:
            raise SystemExit(f"the guest stopped with exit reason {reason}, having written {written}")
        port, _count, offset = struct.unpack_from("<HIQ", state, 34)
        written[port] = state[offset]


def main() -> None:
    flags = Path("/proc/cpuinfo").read_text().split()
    extension = next((name for name in _PROGRAMS if name in flags), None)
    if extension is None:
        raise SystemExit("this CPU has neither vmx nor svm")
    written = probe(extension)
    told = {0: "no", 1: "yes"}
    print(
        f"the guest: {extension} in its CPUID: {told[written[_IN_CPUID]]}; "
        f"may switch it on: {told[written[_SWITCHED_ON]]}"
    )


if __name__ == "__main__":
    main()
