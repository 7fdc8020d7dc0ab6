#!/usr/bin/python3 -I
# SPDX-License-Identifier: LGPL-2.1-or-later
"""modprobe, rmmod, modinfo, systemd-detect-virt and journalctl, acting on a tree (tests/support/tree.py).

tests/support/tools.py copies this file into TREE/.kernel/bin under their names. They do, print
and return what kmod 30 and kernel 6.1 were seen to do in an emulated machine.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

NAME = Path(sys.argv[0]).name
TOP = Path(sys.argv[0]).parents[2]
KERNEL = TOP / ".kernel"
SYS = TOP / "sys/module"
FOLDERS = ("etc", "run", "usr/local/lib", "usr/lib", "lib")


def fail(words: str, code: int = 1) -> NoReturn:
    print(f"{NAME}: {words}", file=sys.stderr)
    sys.exit(code)


def refused(verb: str, module: str, number: int) -> NoReturn:
    fail(f"ERROR: could not {verb} {module}: {os.strerror(number)}")


def text(path: Path, default: str = "") -> str:
    return path.read_text().strip() if path.exists() else default


def add_to(path: Path, number: int) -> None:
    if path.exists():
        path.write_text(f"{int(path.read_text()) + number}\n")


def injected(module: str) -> bool:
    """Do as the first fitting line of /.kernel/failures says, which is used up; whether to act no more."""
    path = KERNEL / "failures"
    failures: list[dict[str, Any]] = [json.loads(line) for line in text(path).splitlines()]
    for failure in failures:
        if failure["tool"] == NAME and failure["module"] in ("", module):
            failures.remove(failure)
            path.write_text("".join(json.dumps(one) + "\n" for one in failures))
            time.sleep(failure["hang"])
            if failure["code"]:
                fail(failure["words"], failure["code"])
            return bool(failure["idle"])
    return False


def configuration() -> list[list[str]]:
    """The words of all lines of modprobe.d that count, in order."""
    files: dict[str, Path] = {}
    for folder in FOLDERS:
        for path in sorted((TOP / folder / "modprobe.d").glob("*.conf")):
            files.setdefault(path.name, path)
    joined = "".join(files[name].read_text() + "\n" for name in sorted(files)).replace("\\\n", "")
    lines = [line.split() for line in joined.splitlines() if line.strip() and not line.startswith("#")]
    return [[line[0], *(line[1].replace("-", "_"), *line[2:])] for line in lines if len(line) > 1]


def shown(default: str, value: str, module: str) -> str:
    """How the kernel shows `value`: a bool (default Y or N) as kstrtobool takes it, an int as is."""
    if default in ("Y", "N"):
        if value[:1] not in tuple("YyTt1NnFf0"):
            refused("insert", f"'{module}'", errno.EINVAL)
        return "Y" if value[0] in "YyTt1" else "N"
    if not value.lstrip("-").isdigit():
        refused("insert", f"'{module}'", errno.EINVAL)
    return value


def insert(module: str, arguments: list[str]) -> None:
    if (SYS / module).exists():
        return
    known = KERNEL / "modules" / module
    if not known.exists():
        fail(f"FATAL: Module {module} not found in directory /lib/modules/x")
    if text(TOP / "proc/sys/kernel/modules_disabled") == "1":
        refused("insert", f"'{module}'", errno.EPERM)
    facts = json.loads(known.read_text())
    lines = configuration()
    for command in (line[2:] for line in lines if line[:2] == ["install", module]):
        status = subprocess.run(" ".join(command), shell=True, check=False).returncode
        if status:
            fail(
                f"ERROR: Error running install command '{' '.join(command)}' "
                f"for module {module}: retcode {status}"
            )
        return
    for needed in facts["needs"]:
        insert(needed, [])
    if facts["extension"] and facts["extension"] not in text(TOP / "proc/cpuinfo").split():
        # What it needs stays loaded.
        refused("insert", f"'{module}'", errno.EOPNOTSUPP)
    given = [word for line in lines if line[:2] == ["options", module] for word in line[2:]]
    for word in text(TOP / "proc/cmdline").split():
        if word.partition(".")[0].replace("-", "_") == module:
            given.append(word.partition(".")[2])
    parameters = facts["defaults"]
    for word in given + arguments:
        key, _, value = word.partition("=")
        # A parameter that it does not know is only a line in the kernel's log.
        if key in parameters:
            parameters[key] = shown(parameters[key], value or "1", module)
    for needed in facts["needs"]:
        add_to(SYS / needed / "refcnt", 1)
        (SYS / needed / "holders" / module).mkdir(parents=True)
    (SYS / module / "parameters").mkdir(parents=True)
    for key, value in parameters.items():
        (SYS / module / "parameters" / key).write_text(value + "\n")
    (SYS / module / "refcnt").write_text("0\n")
    (SYS / module / "initstate").write_text("live\n")


def modprobe(arguments: list[str]) -> None:
    words = [word for word in arguments if word != "--"]
    module = words[0].replace("-", "_")
    if not injected(module):
        insert(module, words[1:])


def rmmod(arguments: list[str]) -> None:
    module = arguments[-1].replace("-", "_")
    if injected(module):
        return
    folder = SYS / module
    if folder.exists() and not (folder / "initstate").exists():
        fail(f"ERROR: Module {module} is builtin.")
    if not folder.exists():
        fail(f"ERROR: Module {module} is not currently loaded")
    holders = sorted(path.name for path in (folder / "holders").glob("*"))
    if holders:
        fail(f"ERROR: Module {module} is in use by: {' '.join(holders)}")
    if int(text(folder / "refcnt")) > 0:
        fail(f"ERROR: Module {module} is in use")
    if text(TOP / "proc/sys/kernel/modules_disabled") == "1":
        refused("remove module", module, errno.EPERM)
    shutil.rmtree(folder)
    for path in SYS.glob(f"*/holders/{module}"):
        path.rmdir()
        add_to(path.parents[1] / "refcnt", -1)


def modinfo(arguments: list[str]) -> None:
    known = KERNEL / "modules" / arguments[-1].replace("-", "_")
    if not known.exists():
        fail(f"ERROR: Module {arguments[-1]} not found.")
    if signer := json.loads(known.read_text()).get("signer"):
        print(signer)


def main() -> None:
    with (KERNEL / "calls").open("a") as calls:
        calls.write(json.dumps([NAME, *sys.argv[1:]]) + "\n")
    if NAME == "modprobe":
        modprobe(sys.argv[1:])
    elif NAME == "rmmod":
        rmmod(sys.argv[1:])
    elif NAME == "systemd-detect-virt":
        if not injected(""):
            word = text(KERNEL / "virtualization", "none")
            if "--vm" in sys.argv:
                word = text(KERNEL / "virtualization-vm", word)
            print(word)
            sys.exit(word == "none")
    elif NAME == "modinfo":
        modinfo(sys.argv[1:])
    elif NAME == "journalctl" and not injected(""):
        [pattern] = [word.partition("=")[2] for word in sys.argv if word.startswith("--grep=")] or [""]
        found = [line for line in text(KERNEL / "log").splitlines() if re.search(pattern, line)]
        print("\n".join(found or ["-- No entries --"]))
        sys.exit(not found)


if __name__ == "__main__":
    main()
