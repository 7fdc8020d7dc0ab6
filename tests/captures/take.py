# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a machine shows of its CPU and of KVM, for tests/captures. Needs nothing but Python.

python3 take.py > shown                 # on the machine
python3 take.py NAME FOLDER < shown     # here: FOLDER/cpuinfo-NAME, cmdline-NAME, ...
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

_FOLDERS = ("/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib")


def text(path: str) -> str:
    """The text of a file, "" where it cannot be read."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def modules() -> str:
    """Lines of `kvm_amd/parameters/nested=1`."""
    kinds = ("initstate", "refcnt", "parameters/*")
    paths = sorted(str(path) for kind in kinds for path in Path("/sys/module").glob(f"kvm*/{kind}"))
    return "".join(f"{path.removeprefix('/sys/module/')}={text(path).strip()}\n" for path in paths)


def configuration() -> str:
    """Each file of modprobe.d behind a line `-- /path`, without its comments. The same file is told once."""
    told, seen = "", set()
    for path in (path for folder in _FOLDERS for path in sorted(Path(folder, "modprobe.d").glob("*.conf"))):
        if path.resolve() not in seen:
            seen.add(path.resolve())
            lines = [one for one in text(str(path)).splitlines() if one.strip() and not one.startswith("#")]
            told += "".join(f"{line}\n" for line in (f"-- {path}", *lines))
    return told


def index() -> str:
    """KVM's lines of modules.dep."""
    lines = text(f"/lib/modules/{os.uname().release}/modules.dep").splitlines()
    return "".join(f"{line}\n" for line in lines if "/kvm" in line.partition(":")[0])


def show() -> None:
    """Everything, in sections."""
    parts = {
        "cpuinfo": text("/proc/cpuinfo"),
        "cmdline": text("/proc/cmdline"),
        "sys-module": modules(),
        "modules.dep": index(),
        "modprobe.d": configuration(),
    }
    for name, told in parts.items():
        print(f"== {name}\n{told}", end="")


def keep(name: str, folder: str) -> None:
    """Each section of what comes in as a file in `folder`, which is made; an empty one is left out."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for part, told in re.findall(r"^== (\S+)\n(.*?)(?=^== |\Z)", sys.stdin.read(), re.MULTILINE | re.DOTALL):
        if told:
            (Path(folder) / f"{part}-{name}").write_text(told)


if __name__ == "__main__":
    keep(*sys.argv[1:]) if sys.argv[1:] else show()
