#!/usr/bin/python3 -I
# SPDX-License-Identifier: LGPL-2.1-or-later
# ruff: noqa: PTH123, PTH208, SIM115
"""A QEMU that its guest has taken over, for test_security.py: tries what it should not be able to do.

It runs as alice in a guest's unit, tells on stderr what came of each attempt, and ends.
"""

import ctypes
import errno
import json
import mmap
import os
import socket
import sys
import threading
from collections.abc import Callable

HOME = "/home/alice"
CLONE_NEWUSER = 0x10000000
PTRACE_ATTACH = 16
KVM_GET_API_VERSION = 0xAE00
libc = ctypes.CDLL(None, use_errno=True)


def called(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")


def connect(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as wire:
        wire.connect(path)


def threads() -> int:
    stop = threading.Event()
    count = 0
    try:
        while count < 500:
            threading.Thread(target=stop.wait, daemon=True).start()
            count += 1
    except RuntimeError:
        pass
    stop.set()
    return count


def eat_memory() -> None:
    with mmap.mmap(-1, 1 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        for at in range(0, 1 << 30, 1 << 20):
            memory[at : at + (1 << 20)] = b"x" * (1 << 20)


def attempt(act: Callable[[], object]) -> str:
    try:
        act()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error.errno))
    return "done"


def main() -> None:
    if "-append" in sys.argv and sys.argv[sys.argv.index("-append") + 1] == "eat":
        eat_memory()
    victim = int(open("/var/tmp/alice.pid").read())
    attempts: dict[str, Callable[[], object]] = {
        "open /dev/kvm": lambda: os.open("/dev/kvm", os.O_RDWR),
        "read ~": lambda: os.open(f"{HOME}/.bashrc", os.O_RDONLY),
        "read /tmp": lambda: os.listdir("/tmp"),
        "write ~": lambda: os.open(f"{HOME}/.bashrc", os.O_WRONLY | os.O_APPEND),
        "write /tmp": lambda: os.open("/tmp/planted", os.O_WRONLY | os.O_CREAT),
        "write /var/tmp": lambda: os.open("/var/tmp/planted", os.O_WRONLY | os.O_CREAT),
        "open /dev/shm": lambda: os.listdir("/dev/shm"),
        "open /dev/pts": lambda: os.listdir("/dev/pts"),
        "open /proc": lambda: os.listdir("/proc"),
        "open /proc/PID/root": lambda: os.listdir(f"/proc/{victim}/root"),
        "open /run/user": lambda: os.listdir("/run/user"),
        "open my device": lambda: os.open("/tmp/disk", os.O_RDONLY),
        "open my console": lambda: os.open("/tmp/rtc", os.O_RDONLY),
        "connect": lambda: connect("/tmp/alice.sock"),
        "system bus": lambda: connect("/run/dbus/system_bus_socket"),
        "internet": lambda: socket.socket(socket.AF_INET),
        "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
        "user namespace": lambda: called(libc.unshare(CLONE_NEWUSER)),
        "ptrace": lambda: called(libc.ptrace(PTRACE_ATTACH, victim, 0, 0)),
        "shared memory": lambda: called(libc.shmget(1, 4096, 0o1600)),
        "writable code": lambda: mmap.mmap(
            -1, 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
        ),
        "mount": lambda: called(libc.mount(b"none", b"/tmp", b"tmpfs", 0, None)),
    }
    for name, act in attempts.items():
        print(json.dumps([name, attempt(act)]), file=sys.stderr)
    print(json.dumps(["threads", threads()]), file=sys.stderr)


if __name__ == "__main__":
    main()
