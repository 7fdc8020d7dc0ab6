# SPDX-License-Identifier: LGPL-2.1-or-later
"""What Verify's guest, L1, does once its init has tried to load the driver: look, run L2, tell, and end.

    python3 inside.py EXTENSION SECONDS

Each thing is told on the console as soon as it is known, as exits.py does. The file /words has what insmod
said, /modules what it was to insert. Nothing is imported that exits.py does not have: this and it are all
of Python in the initramfs.
"""

import os
import sys
import time

from nestd.guests.probe import exits

# Seconds until the guest switches itself off: nestd, which reads the console meanwhile, ends it long before.
_LEFT_ON = 30.0
# Seconds until KVM is said not to come back from L2: an emulated or busy host is slow two levels deep.
_PATIENCE = 60.0
_KERNEL_LINES = 12
_ABOUT_KVM = ("kvm", "svm", "vmx", "npt", "ept", "tsx", "virtualiz", "segfault", "general protection", "bug:")


_OTHERWISE = ("kvm-clock", "kvm-guest")  # of the guest that L1 is


def main() -> None:
    """Tell everything, then power off."""
    extension, limit = sys.argv[1], float(sys.argv[2])
    flags = _flags()
    _tell({"extension": extension in flags, "flags": flags})
    loaded = os.path.exists("/dev/kvm")
    builtin = not _read("/modules").strip()
    _tell({"loaded": loaded, "builtin": builtin, "words": _read("/words").strip()[-400:]})
    if loaded:
        exits.measure("/dev/kvm", limit, _PATIENCE, _tell)
    _tell({"log": _kernel_log()})
    _tell({"end": True})
    time.sleep(_LEFT_ON)
    with open("/proc/sysrq-trigger", "w", encoding="utf-8") as trigger:
        trigger.write("o")
    time.sleep(_LEFT_ON)  # PID 1 must not end, or the kernel panics


def _tell(told: dict[str, object]) -> None:
    sys.stdout.write(exits.line(told))
    sys.stdout.flush()


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def _flags() -> list[str]:
    for line in _read("/proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return value.split()
    return []


def _kernel_log() -> list[str]:
    """The last lines of the kernel's log that speak of KVM. Source: Documentation/ABI/testing/dev-kmsg."""
    log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    found: list[str] = []
    while True:
        try:
            record = os.read(log, 8192).decode("utf-8", "replace")
        except BrokenPipeError:
            continue  # records were overwritten: the next read begins with the oldest that is there
        except BlockingIOError:
            os.close(log)
            return found[-_KERNEL_LINES:]
        text = record.partition(";")[2].partition("\n")[0]
        if any(word in text.lower() for word in _ABOUT_KVM) and not any(one in text for one in _OTHERWISE):
            found.append(text[:200])


if __name__ == "__main__":
    main()
