# SPDX-License-Identifier: LGPL-2.1-or-later
"""What Verify's initramfs is made of: this machine's own Python, a few tools, libraries, the modules."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping

from nestd import tasks
from nestd.errors import ToolFailed, VerifyFailed
from nestd.host.commands import Commands
from nestd.host.machine import Host
from nestd.model import DriverState
from nestd.text import modules

# Where init calls them, and what they are called here. All three are there wherever there is nestd.
_TOOLS = {"/bin/sh": "sh", "/bin/mount": "mount", "/bin/insmod": "insmod"}
_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
_INSIDE = "/nestd/guests/probe/inside.py"
# What a Python has loaded that has imported inside.py, and so what it needs, with the compiled forms: to
# compile all anew costs a slow guest much of its time. The first line is Python itself.
_ASK = """
import os, sys
sys.path.insert(0, sys.argv[1])
import nestd.guests.probe.inside
print(os.path.realpath(sys.executable))
for name, module in list(sys.modules.items()):
    paths = [getattr(module, "__file__", None), getattr(module, "__cached__", None)]
    # A module that put another in its place, as collections.abc does, is found in its package.
    package, _, last = name.rpartition(".")
    paths += [path + "/" + last + ".py" for path in getattr(sys.modules.get(package), "__path__", ())]
    for path in paths:
        if path and os.path.exists(path):
            print(path)
"""
# What libkmod (since 33) loads by itself as soon as a module is compressed: ldd does not tell of it.
_DECOMPRESSORS = ("liblzma.so.5", "libzstd.so.1", "libz.so.1")
_LIBRARY = re.compile(r"^\s+(?:\S+ => )?(/\S+) \(0x[0-9a-f]+\)$", re.MULTILINE)
# The module's options are the kernel's own defaults: what is proved is what the kernel does.
_INIT = """#!/bin/sh
export PATH=/bin PYTHONPATH=/ PYTHONDONTWRITEBYTECODE=1
mount -n -t proc proc /proc
mount -n -t devtmpfs dev /dev
while read -r module; do insmod "$module" || echo "($module)"; done < /modules > /words 2>&1
exec {python} -s -S -X utf8 {inside} {extension} {limit:g}
"""


async def of(host: Host, driver: str, extension: str, limit: float) -> tuple[dict[str, str], dict[str, str]]:
    """Two mappings from the place in the initramfs: to the file here that comes there, and to its text.

    `driver` is the KVM module that L1 loads, `extension` the CPU flag that it looks for, `limit` the seconds
    that it measures. VerifyFailed, ToolMissing, ToolFailed, OSError.
    """
    files = await _python(host.commands)
    python = next(iter(files))
    files |= await tasks.to_thread(_tools, host.commands)
    programs = [python, *_TOOLS, *(place for place in files if place.endswith(".so"))]
    files |= await _libraries(host.commands, [files[place] for place in programs])
    found = _modules(host, driver)
    files |= found
    init = _INIT.format(python=python, inside=_INSIDE, extension=extension, limit=limit)
    return files, {"/init": init, "/modules": "".join(f"{place}\n" for place in found)}


async def _python(commands: Commands) -> dict[str, str]:
    """Python, which comes first, and the files that it reads to run inside.py."""
    argv = (sys.executable, "-I", "-S", "-X", "utf8", "-c", _ASK, os.path.dirname(_PACKAGE))
    done = await commands.run(*argv)
    if done.code != 0:
        raise ToolFailed(argv[:1], done.code, done.err)
    program, *read = done.out.splitlines()
    files = {program: program}
    for path in read:
        ours = path.startswith(_PACKAGE + "/")
        files["/nestd" + path.removeprefix(_PACKAGE) if ours else path] = path
    # By this file Python finds the folder of its library, although it does not read it.
    files[os.__file__] = os.__file__
    return files


def _tools(commands: Commands) -> dict[str, str]:
    return {place: os.path.realpath(commands.find(name)) for place, name in _TOOLS.items()}


async def _libraries(commands: Commands, programs: Iterable[str]) -> dict[str, str]:
    """The shared libraries of `programs`, as ldd(1) tells them, and the loader."""
    # Its exit status says that one of them is linked statically, too.
    done = await commands.run("ldd", *programs)
    told = _LIBRARY.findall(done.out)
    return {path: path for path in [*told, *await tasks.to_thread(_decompressors, told)]}


def _decompressors(libraries: Iterable[str]) -> list[str]:
    folders = {os.path.dirname(path) for path in libraries}
    beside = (f"{folder}/{name}" for folder in sorted(folders) for name in _DECOMPRESSORS)
    return [path for path in beside if os.path.exists(path)]


def _modules(host: Host, driver: str) -> Mapping[str, str]:
    """The driver's file and those of what it needs, in the order to insert them. VerifyFailed, OSError."""
    folder = f"/lib/modules/{host.release}"
    listed = _needed(host.root.read(f"{folder}/modules.dep") or "", driver)
    files = {place: host.root.path(place) for place in (os.path.join(folder, path) for path in listed)}
    missing = [place for place in files if not host.root.exists(place)]
    if missing or not (listed or host.kmod.state(driver) is DriverState.BUILTIN):
        raise VerifyFailed(
            f"The module {driver} of the running kernel {host.release} is not in {folder}"
            f"{f' ({missing[0]} is missing)' if missing else ''}: the kernel was upgraded or removed since "
            "this machine started. Reboot, or install its package again."
        )
    return files


def _needed(text: str, module: str) -> list[str]:
    """The paths of modules.dep(5) to insert, in order, for `module`; empty if it is not listed."""
    for line in text.splitlines():
        path, colon, needs = line.partition(":")
        if colon and modules.normalize(os.path.basename(path).partition(".ko")[0]) == module:
            return [*reversed(needs.split()), path]
    return []
