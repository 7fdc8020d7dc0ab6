# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest of a few instructions straight on /dev/kvm, and what one of its exits costs: a program of its own.

    python3 -I -S exits.py DEVICE LIMIT

It runs in two places: as a child of nestd, which a KVM_RUN that never returns must not hold, and inside the
guest of Verify, whose initramfs has this file. So it imports nothing of nestd and little else. It writes a
line as soon as there is something to tell, so that of one that hangs it is known how far it got:

    nestd-probe {"created": true} .

Source: Documentation/virt/kvm/api.rst, include/uapi/linux/kvm.h.
"""

import fcntl
import json
import mmap
import os
import signal
import struct
import sys
import time
from array import array
from collections.abc import Callable

Tell = Callable[[dict[str, object]], None]

_GET_API_VERSION, _CREATE_VM, _VCPU_MMAP_SIZE = 0xAE00, 0xAE01, 0xAE04
_CREATE_VCPU, _SET_MEMORY, _SET_TSS_ADDR = 0xAE41, 0x4020AE46, 0xAE47
_RUN, _SET_REGS, _GET_SREGS, _SET_SREGS = 0xAE80, 0x4090AE82, 0x8138AE83, 0x4138AE84
_API_VERSION = 12
_EXIT_IO, _EXIT_HLT = 2, 5
_PAGE, _MEMORY = 4096, 0x10000
# Real mode; each repeats itself ESI times, then halts.
_PROGRAMS = {
    # again: xor eax,eax; cpuid; dec esi; jnz again; hlt. Every KVM handles CPUID in the kernel.
    "kernel": (0x1000, bytes.fromhex("6631c0 0fa2 664e 75f7 f4")),
    # again: out 0x10,al; dec esi; jnz again; hlt. A port that nobody has goes to user space.
    "user": (0x1100, bytes.fromhex("e610 664e 75fa f4")),
    # again: xor eax,eax; dec esi; jnz again; hlt: the first one's loop, with no exit in it.
    "nothing": (0x1200, bytes.fromhex("6631c0 664e 75f9 f4")),
}
# Seconds that one round shall take: short, so that most are not interrupted; and the most exits in one.
_ROUND = 0.001
_MOST = 1 << 16


class Failed(Exception):
    """What stood in the way: `stage` (device, api, vm, run), and the kernel's errno or KVM's exit reason."""

    def __init__(self, stage: str, errno: int = 0, reason: int = 0, detail: int = 0) -> None:
        super().__init__(stage)
        self.told = {"stage": stage, "errno": errno, "reason": reason, "detail": detail}


class OutOfTime(Exception):
    """The signal came while the guest ran."""


class Guest:
    """A virtual machine with one vCPU in real mode. Raises Failed."""

    def __init__(self, device: str, tell: Tell) -> None:
        stage = "device"
        try:
            self.kvm = os.open(device, os.O_RDWR | os.O_CLOEXEC)
            api = fcntl.ioctl(self.kvm, _GET_API_VERSION, 0)
            tell({"api": api})
            if api != _API_VERSION:
                raise Failed("api", detail=api)
            stage = "vm"
            machine = fcntl.ioctl(self.kvm, _CREATE_VM, 0)
            fcntl.ioctl(machine, _SET_TSS_ADDR, _MEMORY)  # beside the memory, for Intel
            # An array tells its address, which mmap does not; the pages begin somewhere in it.
            self._memory = array("B", bytes(_MEMORY + _PAGE))
            address = self._memory.buffer_info()[0]
            start = -address % _PAGE
            for place, code in _PROGRAMS.values():
                self._memory[start + place : start + place + len(code)] = array("B", code)
            region = struct.pack("<IIQQQ", 0, 0, 0, _MEMORY, address + start)
            fcntl.ioctl(machine, _SET_MEMORY, region)
            self._cpu = fcntl.ioctl(machine, _CREATE_VCPU, 0)
            self._state = mmap.mmap(self._cpu, fcntl.ioctl(self.kvm, _VCPU_MMAP_SIZE, 0))
            segments = bytearray(0x138)
            fcntl.ioctl(self._cpu, _GET_SREGS, segments)
            struct.pack_into("<Q", segments, 0, 0)  # cs.base
            struct.pack_into("<H", segments, 12, 0)  # cs.selector
            fcntl.ioctl(self._cpu, _SET_SREGS, bytes(segments))
        except OSError as error:
            raise Failed(stage, errno=error.errno or 0) from error
        tell({"created": True})

    def run(self, name: str, times: int, stops: int) -> float:
        """Start a program, which repeats itself `times` times; seconds until its `stops`-th stop."""
        registers = [0] * 18
        registers[4], registers[16], registers[17] = times, _PROGRAMS[name][0], 2  # rsi, rip, rflags
        cpu, ioctl = self._cpu, fcntl.ioctl
        try:
            ioctl(cpu, _SET_REGS, struct.pack("<18Q", *registers))
            began = time.perf_counter()
            for _ in range(stops):
                ioctl(cpu, _RUN, 0)
            took = time.perf_counter() - began
            if name == "user":
                self._expect(_EXIT_IO)
                ioctl(cpu, _RUN, 0)
            self._expect(_EXIT_HLT)
        except OSError as error:
            raise Failed("run", errno=error.errno or 0) from error
        return took

    def _expect(self, reason: int) -> None:
        (found,) = struct.unpack_from("<I", self._state, 8)
        if found != reason:
            (detail,) = struct.unpack_from("<Q", self._state, 32)
            raise Failed("run", reason=found, detail=detail)

    def in_kernel(self, times: int) -> tuple[float, float]:
        """Seconds of `times` exits that the kernel handles, and of the same loop without."""
        return self.run("kernel", times, 1), self.run("nothing", times, 1)

    def in_user_space(self, times: int) -> tuple[float, float]:
        """The same with as many exits that user space sees, and with as many calls of an idle ioctl."""
        whole = self.run("user", times, times)
        kvm, ioctl = self.kvm, fcntl.ioctl
        began = time.perf_counter()
        for _ in range(times):
            ioctl(kvm, _GET_API_VERSION, 0)
        return whole, time.perf_counter() - began


def spread(measure: Callable[[int], tuple[float, float]], limit: float) -> dict[str, float]:
    """Nanoseconds of one exit: median and quartiles of as many rounds as `limit` seconds allow, one at least.

    `measure` takes the number of exits in a round and returns seconds: with them, and without. The least of
    the latter is taken off each of the former: an interruption only ever adds to either, and if it fell into
    the rest of its own round, it would be taken off what it is no part of. Where there is less than that
    even so, as of a single round on a machine under load, it is 0.
    """
    ends = time.perf_counter() + limit
    times, found, rest = 8, list[float](), list[float]()
    while True:
        whole, without = measure(times)
        took = whole + without
        now = time.perf_counter()
        if took < _ROUND and times < _MOST and now + 4 * took < ends:
            times *= 2  # and this round was too short to count
            continue
        found.append(whole)
        rest.append(without)
        if now + took > ends:
            break
    least = min(rest)
    found = sorted(max(0.0, whole - least) / times * 1e9 for whole in found)
    last = len(found) - 1
    low, median, high = (found[round(last * part)] for part in (0.25, 0.5, 0.75))
    return {"median": median, "low": low, "high": high, "rounds": len(found), "exits": times}


def measure(device: str, limit: float, patience: float, tell: Tell) -> None:
    """Tell what /dev/kvm does, within about `limit` seconds; what it cannot do is told, never raised.

    After `patience` seconds, it does not come back; those of a guest pass while its host does other things.
    """

    def out_of_time(_number: int, _frame: object) -> None:
        raise OutOfTime

    signal.signal(signal.SIGALRM, out_of_time)
    # Again and again: one that comes just before KVM_RUN is entered does not interrupt it.
    signal.setitimer(signal.ITIMER_REAL, patience, 0.1)
    try:
        guest = Guest(device, tell)
        guest.run("nothing", 1, 1)
        tell({"ran": True})
        tell({"kernel": spread(guest.in_kernel, limit / 2)})
        tell({"user": spread(guest.in_user_space, limit / 2)})
    except Failed as failed:
        tell({"failed": failed.told})
    except OutOfTime:
        tell({"failed": {"stage": "time", "errno": 0, "reason": 0, "detail": 0}})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def line(told: dict[str, object]) -> str:
    """A line of what is told. A kernel message that falls into it leaves it without its end."""
    return f"nestd-probe {json.dumps(told)} .\n"


def main() -> None:
    """What the command line asks for."""

    def tell(told: dict[str, object]) -> None:
        sys.stdout.write(line(told))
        sys.stdout.flush()

    limit = float(sys.argv[2])
    measure(sys.argv[1], limit, 4 * limit + 1, tell)


if __name__ == "__main__":
    main()
